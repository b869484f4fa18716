/**
 * Config space of a described function: header, the PCI Express capability, ACS, ATS and SR-IOV.
 */
import { ACS_CONTROLS } from '../../../ts/host.ts';

const PORT_TYPES: Readonly<Record<string, number>> = {
  endpoint: 0,
  'legacy-endpoint': 1,
  'root-port': 4,
  'switch-upstream': 5,
  'switch-downstream': 6,
  'pcie-to-pci-bridge': 7,
  'integrated-endpoint': 9,
};

export interface ConfigWishes {
  readonly vendor: number;
  readonly device: number;
  /** A name of {@link PORT_TYPES}; without one the function is conventional. */
  readonly type: string | undefined;
  readonly bus: readonly [secondary: number, subordinate: number] | undefined;
  /** Names of the controls that are on; `undefined` without the capability. */
  readonly acs: readonly string[] | undefined;
  readonly ats: 'on' | 'off' | undefined;
  readonly command: number;
  /** SR-IOV control; `undefined` without the capability. */
  readonly sriov: number | undefined;
}

export function configBytes(wishes: ConfigWishes): Uint8Array {
  const type = wishes.type === undefined ? undefined : PORT_TYPES[wishes.type];
  if (wishes.type !== undefined && type === undefined) throw new Error(`unknown port type: ${wishes.type}`);
  const view = new DataView(new ArrayBuffer(type === undefined ? 256 : 4096));
  view.setUint16(0, wishes.vendor, true);
  view.setUint16(2, wishes.device, true);
  view.setUint16(4, wishes.command, true);
  if (wishes.bus !== undefined) {
    view.setUint8(0x0e, 1);
    view.setUint8(0x19, wishes.bus[0]);
    view.setUint8(0x1a, wishes.bus[1]);
  }
  if (type === undefined) return new Uint8Array(view.buffer);
  view.setUint16(6, 0x10, true); // it has capabilities
  view.setUint8(0x34, 0x40);
  view.setUint8(0x40, 0x10); // PCI Express, the only one
  view.setUint16(0x42, (type << 4) | 2, true);
  const extended: [id: number, fill: (offset: number) => void][] = [];
  const { acs, ats, sriov } = wishes;
  if (acs !== undefined) {
    extended.push([
      0x0d,
      (offset) => {
        view.setUint16(offset + 4, 0x5f, true); // all but egress control
        view.setUint16(
          offset + 6,
          acs.map(bitOf).reduce((sum, bit) => sum | bit, 0),
          true,
        );
      },
    ]);
  }
  if (ats !== undefined) extended.push([0x0f, (offset) => view.setUint16(offset + 6, ats === 'on' ? 0x8000 : 0, true)]);
  if (sriov !== undefined) extended.push([0x10, (offset) => view.setUint16(offset + 8, sriov, true)]);
  for (const [index, [id, fill]] of extended.entries()) {
    const offset = 0x100 + index * 0x40;
    const next = index === extended.length - 1 ? 0 : offset + 0x40;
    view.setUint32(offset, id | 0x10000 | (next << 20), true);
    fill(offset);
  }
  return new Uint8Array(view.buffer);
}

function bitOf(name: string): number {
  const bit = (ACS_CONTROLS as readonly string[]).indexOf(name);
  if (bit === -1) throw new Error(`unknown control of ACS: ${name}`);
  return 1 << bit;
}
