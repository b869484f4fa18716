/**
 * Reads the PCI Express link of a function.
 */
import type { SysFiles } from './sys-files.ts';

/** Current and maximum speed and width of a link; `undefined` if /sys does not report them. */
export interface PcieLinkFacts {
  /** Current speed in GT/s: 2.5, 5, 8, 16, 32 or 64. */
  readonly speed: number | undefined;
  /** Current width in lanes: 1 to 32. */
  readonly width: number | undefined;
  /** Maximum speed of the function in GT/s. */
  readonly mostSpeed: number | undefined;
  /** Maximum width of the function in lanes. */
  readonly mostWidth: number | undefined;
}

/** Returns `undefined` for a function without a link. @internal */
export function readLink(files: SysFiles, folder: string): PcieLinkFacts | undefined {
  const [speed, mostSpeed] = ['current', 'max'].map((when) => readSpeed(files, `${folder}/${when}_link_speed`));
  const [width, mostWidth] = ['current', 'max'].map((when) => readWidth(files, `${folder}/${when}_link_width`));
  if ([speed, width, mostSpeed, mostWidth].every((fact) => fact === undefined)) return undefined;
  return { speed, width, mostSpeed, mostWidth };
}

/** Parses `8.0 GT/s PCIe` (before Linux 5.8 `8 GT/s`), or `unknown` without a link partner. */
function readSpeed(files: SysFiles, path: string): number | undefined {
  const word = files.word(path);
  if (word === undefined || /^unknown/i.test(word)) return undefined;
  const digits = /^(\d{1,3}(?:\.\d)?) GT\/s/.exec(word)?.[1];
  if (digits === undefined) files.report(path, `holds ${JSON.stringify(word.slice(0, 40))}, which is not a speed`);
  return digits === undefined ? undefined : Number(digits);
}

/** The file holds 0 without a link partner and 255 if the width is unknown. */
function readWidth(files: SysFiles, path: string): number | undefined {
  if (!files.has(path)) return undefined;
  const width = files.number(path, 255);
  return width === 'unknown' || width === 0 || width > 32 ? undefined : width;
}
