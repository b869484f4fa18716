/**
 * Writes the examples of the pages to target/guides, where tsconfig.emit.json finds them: what runs in a guest has to be
 * compiled before.
 */
import { extractExamples } from './support/examples.ts';

extractExamples();
