/**
 * Writes the examples of the pages to target/guides.
 *
 * scripts/compile.mjs compiles them there for the guests.
 */
import { extractExamples } from './support/examples.ts';

extractExamples();
