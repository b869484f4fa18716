/**
 * A registry of npm packages on loopback, with the parts that `npm install` uses.
 */
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** The used fields of a package.json. */
export interface Manifest {
  readonly name: string;
  readonly version: string;
}

/** A published package. Without a tarball it is listed, but cannot be downloaded. */
export interface Published {
  readonly manifest: Manifest;
  readonly tarball?: Buffer | undefined;
}

export interface Registry {
  readonly url: string;
  /** Names of the packages that were downloaded. */
  readonly downloads: string[];
  close(): void;
}

/** Serves packages, each in its one version. */
export async function serveRegistry(packages: readonly Published[]): Promise<Registry> {
  const downloads: string[] = [];
  const server = createServer(({ url: path = '' }, response) => {
    const asked = decodeURIComponent(path.slice(1));
    const tarballOf = packages.find(({ manifest }) => asked === `${manifest.name}.tgz`);
    const found = packages.find(({ manifest }) => asked === manifest.name);
    if (tarballOf !== undefined) downloads.push(tarballOf.manifest.name);
    if (tarballOf?.tarball !== undefined) response.end(tarballOf.tarball);
    else if (found !== undefined) response.end(JSON.stringify(description(found, url)));
    else response.writeHead(404).end('{}');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const close = (): void => {
    server.close();
    server.closeAllConnections();
  };
  return { url, downloads, close };
}

/** The metadata of a package: the "packument" of npm's documentation. */
function description({ manifest, tarball }: Published, url: string): object {
  const { name, version } = manifest;
  const sum =
    tarball === undefined ? {} : { integrity: `sha512-${createHash('sha512').update(tarball).digest('base64')}` };
  const dist = { tarball: `${url}${encodeURIComponent(name)}.tgz`, ...sum };
  return { name, 'dist-tags': { latest: version }, versions: { [version]: { ...manifest, dist } } };
}
