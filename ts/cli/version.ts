/**
 * The version of this package.
 */
import { readFileSync } from 'node:fs';

/** `version` of the package's own manifest. */
export function packageVersion(): string {
  const manifest: { readonly version: string } = JSON.parse(
    readFileSync(new URL(import.meta.resolve('peerdma/package.json')), 'utf8'),
  );
  return manifest.version;
}
