// Tests on real VFIO devices, one file at a time: they share the devices. Compiled before: transpiling is slow in a guest.
export default {
  files: ['target/js/__test__/vfio/**/*.test.js'],
  nodeArguments: ['--enable-source-maps', '--expose-gc'],
  concurrency: 1,
  serial: true,
  timeout: '2m',
  workerThreads: false,
  cache: false,
};
