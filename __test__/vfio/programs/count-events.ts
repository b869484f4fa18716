/**
 * Prints the number of processed events of the event loop, for each SIGUSR2.
 *
 * `node --import` loads it before a program.
 */
import { performance } from 'node:perf_hooks';

process.on('SIGUSR2', () => {
  const { events } = performance.nodeTiming.uvMetricsInfo;
  process.stderr.write(`events: ${events}\n`);
});
