/**
 * The ends of several things, such as devices.
 */

/**
 * Calls all of these, one after another.
 *
 * @throws the first error, after all were called
 */
export async function endAll(ends: Iterable<() => void | Promise<void>>): Promise<void> {
  const errors: unknown[] = [];
  for (const end of ends) {
    try {
      await end();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}
