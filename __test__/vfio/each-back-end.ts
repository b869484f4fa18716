/**
 * The tests on real devices that run with each back end: with type1 on each kernel, and with iommufd. They use the back
 * end of PEERDMA_VFIO_BACKEND.
 */
import './abort.test.ts';
import './assigned/comings-and-goings.test.ts';
import './assigned/decode.test.ts';
import './assigned/groups.test.ts';
import './assigned/hot-remove.test.ts';
import './assigned/interrupts.test.ts';
import './assigned/mmio.test.ts';
import './assigned/pinned.test.ts';
import './assigned/placement.test.ts';
import './assigned/policy.test.ts';
import './assigned/power.test.ts';
import './assigned/reset.test.ts';
import './assigned/sizing.test.ts';
import './assigned/swap.test.ts';
import './behaviours.test.ts';
import './best-effort.test.ts';
import './bind.test.ts';
import './child-processes.test.ts';
import './containers.test.ts';
import './dirty-tracking.test.ts';
import './dma-buffer.test.ts';
import './doctor-blocked.test.ts';
import './event-loop.test.ts';
import './failing-allocations.test.ts';
import './handed.test.ts';
import './hot-reset.test.ts';
import './huge-pages.test.ts';
import './interrupts.test.ts';
import './lost-page.test.ts';
import './migration.test.ts';
import './nvme.test.ts';
import './opening.test.ts';
import './peer-to-peer.test.ts';
import './pluggable-ram.test.ts';
import './process-death.test.ts';
import './random-programs.test.ts';
import './topology.test.ts';
import './vf-token.test.ts';
import './virtual-functions.test.ts';
