/**
 * The examples of the guides that create a virtual machine (guides/examples.test.ts).
 */
import test from 'ava';
import { readExamples } from '../../guides/support/examples.ts';
import { runExample } from '../support/run-example.ts';

for (const example of readExamples().filter(({ kvm }) => kvm)) {
  test.serial(`the example at ${example.where} runs`, (t) => runExample(t, example));
}
