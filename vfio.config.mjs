// Tests on real VFIO devices, one at a time because they share the devices. scripts/compile.mjs bundles them and AVA:
// no other AVA can run them, and traces show lines of target/js.
// PEERDMA_TESTBED_PLATFORM names the tests of a guest that runs these alone.
export default {
  files: [`target/js/__test__/vfio/${process.env.PEERDMA_TESTBED_PLATFORM ?? 'all'}.js`],
  nodeArguments: ['--expose-gc'],
  serial: true,
  timeout: '5m',
  workerThreads: false,
  cache: false,
};
