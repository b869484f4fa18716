// Unit and simulation tests: they need neither privileges nor devices.
import { bundlePages } from './scripts/pages.mjs';

await bundlePages(); // tests of the pages read the bundles

export default {
  files: ['__test__/**/*.test.ts', '!__test__/vfio/**'],
  extensions: { ts: 'module' },
  nodeArguments: ['--import=./scripts/typescript/register.mjs', '--enable-source-maps'],
  timeout: '5m',
  // Each file in a process of its own: memory mappings and descriptors are counted for a whole process.
  workerThreads: false,
};
