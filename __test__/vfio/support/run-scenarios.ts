/**
 * Scenarios of a program, which tests start and report (`testScenarios`).
 */

/** The result of a scenario: its stack if it failed, and lines for the log. */
export interface Outcome {
  readonly error?: string;
  readonly log: readonly string[];
}

/** A scenario: throws if it fails, and returns lines for the log. */
export type Scenario = () => Promise<readonly string[] | void>;

/** Runs the scenarios in order, and prints their results as JSON. */
export async function runScenarios(scenarios: Readonly<Record<string, Scenario>>): Promise<void> {
  const outcomes: Record<string, Outcome> = {};
  for (const [title, run] of Object.entries(scenarios)) {
    try {
      outcomes[title] = { log: (await run()) ?? [] };
    } catch (error) {
      outcomes[title] = { log: [], error: error instanceof Error ? (error.stack ?? error.message) : String(error) };
    }
  }
  console.log(JSON.stringify(outcomes));
}
