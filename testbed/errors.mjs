// The error of this folder for a guest that is unavailable or broken.

/** Explains why there is no guest, with a remedy; any other exception is a bug of the testbed. */
export class TestbedError extends Error {
  /** @override */
  name = 'TestbedError';
}
