// Tests on real VFIO devices, one at a time since they share the devices. Compiled before: transpiling is slow in a guest.
// PEERDMA_TESTBED_PLATFORM names the tests for a guest that is made for them alone.
export default {
  files: [`target/js/__test__/vfio/${process.env.PEERDMA_TESTBED_PLATFORM ?? 'all'}.js`],
  nodeArguments: ['--enable-source-maps', '--expose-gc'],
  serial: true,
  timeout: '5m',
  workerThreads: false,
  cache: false,
};
