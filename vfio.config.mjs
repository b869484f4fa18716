// Tests on real VFIO devices, one at a time because they share the devices. They and AVA are bundled before
// (scripts/compile.mjs), only that AVA runs them, and traces show lines of target/js.
// PEERDMA_TESTBED_PLATFORM names the tests of a guest that runs these alone.
export default {
  files: [`target/js/__test__/vfio/${process.env.PEERDMA_TESTBED_PLATFORM ?? 'all'}.js`],
  nodeArguments: ['--expose-gc'],
  serial: true,
  timeout: '5m',
  workerThreads: false,
  cache: false,
};
