/**
 * Splits the kernel's command line as the kernel does.
 */

/** One parameter of the command line. */
export interface KernelParameter {
  /** Text of the parameter, quotes included. */
  readonly text: string;
  /** Text before the first `=`, with `_` for `-`, since the kernel treats them alike. */
  readonly name: string;
  /** Text after the first `=`, without enclosing quotes; `undefined` without a `=`. */
  readonly value: string | undefined;
}

/**
 * Splits at white space outside double quotes (Linux, lib/cmdline.c: `next_arg`).
 *
 * Drops parameters after `--`, which are for init (kernel/params.c: `parse_args`).
 *
 * @internal
 */
export function splitCommandLine(line: string): KernelParameter[] {
  const texts = line.match(/(?:[^ \t\n\v\f\r"]|"[^"]*(?:"|$))+/g) ?? [];
  const end = texts.findIndex((text) => withoutQuotes(text) === '--');
  return texts.slice(0, end === -1 ? undefined : end).map(parameterOf);
}

/** Removes quotes that begin before the name or the value; others stay. */
function parameterOf(text: string): KernelParameter {
  const whole = withoutQuotes(text);
  const equals = whole.indexOf('=', 1);
  const name = (equals === -1 ? whole : whole.slice(0, equals)).replaceAll('-', '_');
  return { text, name, value: equals === -1 ? undefined : withoutQuotes(whole.slice(equals + 1)) };
}

function withoutQuotes(text: string): string {
  return text.startsWith('"') ? text.slice(1).replace(/"$/, '') : text;
}
