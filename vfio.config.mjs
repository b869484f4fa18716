// Tests on real VFIO devices, one at a time because they share the devices. They are compiled before, and traces show
// lines of target/js: in a guest, compiling and reading source maps take longer than a test.
// PEERDMA_TESTBED_PLATFORM names the tests of a guest that runs these alone.
export default {
  files: [`target/js/__test__/vfio/${process.env.PEERDMA_TESTBED_PLATFORM ?? 'all'}.js`],
  nodeArguments: ['--expose-gc'],
  serial: true,
  timeout: '5m',
  workerThreads: false,
  cache: false,
};
