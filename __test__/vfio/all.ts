/**
 * All tests on real devices, without those of iommufd, in one file. In an emulated guest, starting a process takes
 * longer than a test.
 *
 * The tests below run once on each kernel. They are about type1 alone, or PEERDMA_VFIO_BACKEND does not change them:
 * these open no device, or let the package choose the back end.
 */
import './each-back-end.ts';
import './backend-choice.test.ts';
import './bind-without-opening.test.ts';
import './demo.test.ts';
import './doctor.test.ts';
import './examples.test.ts';
import './guides.test.ts';
import './kernel-limits.test.ts';
import './kernel-refusals.test.ts';
import './leaks.test.ts';
import './lost-group.test.ts';
import './native-guard.test.ts';
import './wrong-caller.test.ts';
import './wrong-order.test.ts';
import './wrong-target.test.ts';
