/**
 * Pages as one HTML file, which contains its script, styles and data and sends no requests.
 */
import { readFileSync } from 'node:fs';
import { PeerDmaError, asError } from '../errors.ts';
import { escape, scriptData } from './markup.ts';

/** The content security policy of the pages: forbids all requests, whatever the data contains. */
const POLICY =
  "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/** The parts of a page. */
export interface PageParts {
  readonly title: string;
  /** HTML. */
  readonly body: string;
  /** Data for the script, as JSON. */
  readonly data: unknown;
}

/**
 * Returns the document of a page with its script and styles from `ts/web`.
 *
 * @throws {PeerDmaError} as {@link bundledText}
 */
export function htmlPage(name: 'view' | 'topology', { title, body, data }: PageParts): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title>
<link rel="icon" href="data:,">
<style>
${bundledText(`${name}.css`)}</style>
</head>
<body>
${body}
<script id="data" type="application/json">${scriptData(data)}</script>
<script>
${bundledText(`${name}.js`)}</script>
</body>
</html>
`;
}

/**
 * Reads a file that `npm run build` bundles from `ts/web`.
 *
 * @throws {PeerDmaError} `ERR_SYSTEM` with errno when the file cannot be read
 */
export function bundledText(name: string): string {
  const file = new URL(`dist/web/${name}`, import.meta.resolve('peerdma/package.json'));
  try {
    return readFileSync(file, 'utf8');
  } catch (thrown) {
    const error: NodeJS.ErrnoException = asError(thrown);
    const remedy = 'Run npm run build in a checkout, or install peerdma again.';
    const message = `${file.pathname}: read failed: ${error.message}. ${remedy}`;
    throw new PeerDmaError('ERR_SYSTEM', message, { errno: error.code, cause: thrown });
  }
}
