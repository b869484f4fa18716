/**
 * All commands of the `peerdma` program. The module of a command is loaded when the command runs.
 */
import type { Commands } from './run.ts';

export const COMMANDS: Commands = {
  bind: {
    summary: 'binds devices to vfio-pci',
    load: async () => (await import('./bind/command.ts')).bindCommand(),
  },
  demo: {
    summary: 'demonstrates the package step by step, on simulated or real devices',
    load: async () => (await import('./demo/command.ts')).demoCommand,
  },
  doctor: {
    summary: 'checks whether devices of this machine can be assigned, and names the remedies',
    load: async () => (await import('./doctor/command.ts')).doctorCommand(),
  },
  explain: {
    summary: 'explains an address of guest memory: its memory, and which targets reach it or why not',
    load: async () => (await import('./explain.ts')).explainCommand,
  },
  topology: {
    summary: 'prints the PCI tree, the IOMMU groups and the peer-to-peer matrix',
    load: async () => (await import('./topology/command.ts')).topologyCommand(),
  },
  unbind: {
    summary: 'binds devices from vfio-pci back to their own drivers',
    load: async () => (await import('./bind/command.ts')).unbindCommand(),
  },
  view: {
    summary: 'converts a snapshot or a journal of guest memory to a page',
    load: async () => (await import('./view.ts')).viewCommand,
  },
};
