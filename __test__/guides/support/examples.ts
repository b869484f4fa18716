/**
 * The TypeScript blocks of the pages as programs: their devices, expected output, and compilation.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type Block, type Page, readPages, top } from './pages.ts';

/** Kinds of emulated devices in the testbed. */
const KINDS = ['edu', 'ivshmem', 'nvme'] as const;
export type Kind = (typeof KINDS)[number];

const PCI_ADDRESS = /[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]/g;

export interface Example {
  /** Such as `docs-vmm-2`. */
  readonly name: string;
  /** Page and line. */
  readonly where: string;
  readonly page: string;
  readonly code: string;
  /** The kinds for the PCI addresses in the code, in their order. Empty: it runs without devices. */
  readonly devices: readonly { readonly bdf: string; readonly kind: Kind }[];
  /** Whether it creates a virtual machine of KVM. */
  readonly kvm: boolean;
}

/** The mark of a block that creates a virtual machine of KVM. */
const KVM = 'kvm';

/** Whether it runs on any machine, without devices, privileges and KVM. */
export function runsAnywhere({ devices, kvm }: Example): boolean {
  return devices.length === 0 && !kvm;
}

/** The folder of the examples, unchanged, for the compiler. */
export const folder = new URL('target/guides/', top);

export function readExamples(): Example[] {
  return readPages().flatMap(examplesOf);
}

/** @throws if the mark of a block is invalid, or does not match the addresses in the code */
export function examplesOf({ path, blocks }: Page): Example[] {
  const stem = path.replace(/\.md$/, '').replaceAll('/', '-');
  return blocks
    .filter(({ language }) => language === 'ts')
    .map((block, index) => {
      const { page, line, code } = block;
      const needs = { devices: devicesOf(block), kvm: block.mark === KVM };
      return { name: `${stem}-${index + 1}`, where: `${page}:${line}`, page, code, ...needs };
    });
}

function devicesOf({ page, line, mark, code }: Block): Example['devices'] {
  if (mark === '' || mark === KVM) return [];
  const words = /^vfio=([a-z,]+)$/.exec(mark)?.[1]?.split(',') ?? [];
  const kinds = words.filter((word): word is Kind => KINDS.some((kind) => kind === word));
  if (kinds.length === 0 || kinds.length !== words.length) {
    throw new Error(`${page}:${line}: the mark is ${KVM}, or vfio=KIND,KIND… of ${KINDS.join(', ')}, not "${mark}"`);
  }
  const addresses = [...new Set(code.match(PCI_ADDRESS) ?? [])];
  if (addresses.length !== kinds.length) {
    throw new Error(`${page}:${line}: ${mark} is for ${kinds.length} devices, and the block has ${addresses.length}`);
  }
  return kinds.map((kind, index) => ({ kind, bdf: addresses[index] ?? '' }));
}

/** Writes the examples into {@link folder}, and removes all other files there. */
export function extractExamples(): Example[] {
  const examples = readExamples();
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const { name, code } of examples) writeFileSync(new URL(`${name}.ts`, folder), code);
  return examples;
}

/** A compiled example. @throws if the page has changed since */
export function compiledExample({ name, where, code }: Example): string {
  let extracted: string | undefined;
  try {
    extracted = readFileSync(new URL(`${name}.ts`, folder), 'utf8');
  } catch {
    // It is missing, which is reported like a change.
  }
  if (extracted !== code) throw new Error(`${where} has changed since it was compiled: npm run test:guest compiles it`);
  return readFileSync(new URL(`target/js/target/guides/${name}.js`, top), 'utf8');
}

/**
 * Code that imports the package of this checkout, with other PCI addresses.
 *
 * @param entryPoints the URL of their folder, with a slash at its end, and the extension of the files
 */
export function placed(
  code: string,
  { folder: url, extension }: { readonly folder: string; readonly extension: '.js' | '.ts' },
  addresses: Readonly<Record<string, string>> = {},
): string {
  const here = code.replace(
    /(?<=from )(['"])peerdma(?:\/(\w+))?\1/g,
    (_, _quote, name: string = 'index') => `'${url}${name}${extension}'`,
  );
  return here.replace(PCI_ADDRESS, (bdf) => addresses[bdf] ?? bdf);
}

/** The expected output: the comments at the end of lines with `console.log`. */
export function promisedLines(code: string): string[] {
  return [...code.matchAll(/console\.log\(.*\/\/ (.*)$/gm)].map(([, text = '']) => text);
}

/**
 * The first difference from the expected output. Expected lines must be printed in order. Other lines may be printed
 * between them only if some calls of `console.log` have no comment.
 */
export function brokenPromise(code: string, printed: readonly string[]): string | undefined {
  const promised = promisedLines(code);
  const calls = code.match(/console\.log\(/g)?.length ?? 0;
  if (calls === promised.length && printed.length > promised.length) {
    return `"${printed.find((line) => !promised.includes(line)) ?? printed.at(-1)}" is printed, but not in a comment`;
  }
  let at = 0;
  for (const line of promised) {
    const found = printed.indexOf(line, at);
    if (found < 0) return `"${line}" was to be printed; printed was:\n${printed.join('\n')}`;
    at = found + 1;
  }
  return undefined;
}
