// The one error this folder throws on purpose: the guest can't be had, or it broke.

/** Says why there is no guest (and what would change that); anything else that is thrown is a fault in the testbed. */
export class TestbedError extends Error {
  /** @override */
  name = 'TestbedError';
}
