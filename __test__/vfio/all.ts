/**
 * All tests on real devices, as one file: in an emulated guest it takes longer to start a process than to run a test.
 */
import './assigned/comings-and-goings.test.ts';
import './assigned/decode.test.ts';
import './assigned/example.test.ts';
import './assigned/groups.test.ts';
import './assigned/hot-remove.test.ts';
import './assigned/interrupts.test.ts';
import './assigned/mmio.test.ts';
import './assigned/pinned.test.ts';
import './assigned/placement.test.ts';
import './assigned/power.test.ts';
import './assigned/reset.test.ts';
import './assigned/sizing.test.ts';
import './assigned/swap.test.ts';
import './backend-choice.test.ts';
import './behaviours.test.ts';
import './best-effort.test.ts';
import './containers.test.ts';
import './demo.test.ts';
import './dirty-tracking.test.ts';
import './hot-reset.test.ts';
import './huge-pages.test.ts';
import './interrupts.test.ts';
import './kernel-limits.test.ts';
import './kernel-refusals.test.ts';
import './leaks.test.ts';
import './lost-group.test.ts';
import './native-guard.test.ts';
import './nvme.test.ts';
import './opening.test.ts';
import './peer-to-peer.test.ts';
import './process-death.test.ts';
import './random-programs.test.ts';
import './wrong-caller.test.ts';
import './wrong-order.test.ts';
import './wrong-target.test.ts';
