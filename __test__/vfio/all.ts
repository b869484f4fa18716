/**
 * All tests on real devices, as one file: in an emulated guest it takes longer to start a process than to run a test.
 */
import './best-effort.test.ts';
import './containers.test.ts';
import './demo.test.ts';
import './huge-pages.test.ts';
import './kernel-limits.test.ts';
import './kernel-refusals.test.ts';
import './leaks.test.ts';
import './lost-group.test.ts';
import './native-guard.test.ts';
import './opening.test.ts';
import './peer-to-peer.test.ts';
import './process-death.test.ts';
import './random-programs.test.ts';
import './type1-rules.test.ts';
import './wrong-caller.test.ts';
import './wrong-order.test.ts';
import './wrong-target.test.ts';
