/**
 * Writes the examples of the pages to target/guides.
 *
 * tsconfig.emit.json finds them there: programs for a guest are compiled first.
 */
import { extractExamples } from './support/examples.ts';

extractExamples();
