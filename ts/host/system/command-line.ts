/**
 * The kernel's command line, split as the kernel splits it.
 */

/** One parameter. */
export interface KernelParameter {
  /** As the line has it, quotes included. */
  readonly text: string;
  /** Before the first `=`, with `_` for `-`: the kernel makes no difference. */
  readonly name: string;
  /** After it, without quotes around; `undefined` without a `=`. */
  readonly value: string | undefined;
}

/**
 * Splits at white space outside double quotes (Linux, lib/cmdline.c: `next_arg`). What follows `--` is for init
 * (kernel/params.c: `parse_args`).
 *
 * @internal
 */
export function splitCommandLine(line: string): KernelParameter[] {
  const texts = line.match(/(?:[^ \t\n\v\f\r"]|"[^"]*(?:"|$))+/g) ?? [];
  const end = texts.findIndex((text) => withoutQuotes(text) === '--');
  return texts.slice(0, end === -1 ? undefined : end).map(parameterOf);
}

/** Quotes begin before the name or before the value; others stay. */
function parameterOf(text: string): KernelParameter {
  const whole = withoutQuotes(text);
  const equals = whole.indexOf('=', 1);
  const name = (equals === -1 ? whole : whole.slice(0, equals)).replaceAll('-', '_');
  return { text, name, value: equals === -1 ? undefined : withoutQuotes(whole.slice(equals + 1)) };
}

function withoutQuotes(text: string): string {
  return text.startsWith('"') ? text.slice(1).replace(/"$/, '') : text;
}
