// Tests on real VFIO devices, one at a time since they share the devices. Compiled before: transpiling is slow in a guest.
export default {
  files: ['target/js/__test__/vfio/all.js'],
  nodeArguments: ['--enable-source-maps', '--expose-gc'],
  serial: true,
  timeout: '2m',
  workerThreads: false,
  cache: false,
};
