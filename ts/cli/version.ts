/**
 * The version of this package.
 */
import { readFileSync } from 'node:fs';

/** Returns the `version` field of the manifest of this package. */
export function packageVersion(): string {
  const manifest: { readonly version: string } = JSON.parse(
    readFileSync(new URL(import.meta.resolve('peerdma/package.json')), 'utf8'),
  );
  return manifest.version;
}
