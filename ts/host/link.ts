/**
 * The PCI Express link of a function, as the kernel words it in /sys.
 */
import type { SysFiles } from './sys-files.ts';

/** Speed and width, now and at most. `undefined` where /sys doesn't say. */
export interface LinkFacts {
  /** Now, in GT/s: 2.5, 5, 8, 16, 32 or 64. */
  readonly speed: number | undefined;
  /** Now, in lanes: 1 to 32. */
  readonly width: number | undefined;
  /** What the function can do, in GT/s. */
  readonly mostSpeed: number | undefined;
  /** What the function can do, in lanes. */
  readonly mostWidth: number | undefined;
}

/** `undefined` for a function that has no link. @internal */
export function readLink(files: SysFiles, folder: string): LinkFacts | undefined {
  const [speed, mostSpeed] = ['current', 'max'].map((when) => readSpeed(files, `${folder}/${when}_link_speed`));
  const [width, mostWidth] = ['current', 'max'].map((when) => readWidth(files, `${folder}/${when}_link_width`));
  if ([speed, width, mostSpeed, mostWidth].every((fact) => fact === undefined)) return undefined;
  return { speed, width, mostSpeed, mostWidth };
}

/** `8.0 GT/s PCIe`, before Linux 5.8 `8 GT/s`; `Unknown` where there is no link partner. */
function readSpeed(files: SysFiles, path: string): number | undefined {
  const word = files.word(path);
  if (word === undefined || /^unknown/i.test(word)) return undefined;
  const digits = /^(\d{1,3}(?:\.\d)?) GT\/s/.exec(word)?.[1];
  if (digits === undefined) files.report(path, `says ${JSON.stringify(word.slice(0, 40))}, which is no speed`);
  return digits === undefined ? undefined : Number(digits);
}

/** 0 where there is no link partner, 255 where the kernel doesn't know. */
function readWidth(files: SysFiles, path: string): number | undefined {
  if (!files.has(path)) return undefined;
  const width = files.number(path, 255);
  return width === 'unknown' || width === 0 || width > 32 ? undefined : width;
}
