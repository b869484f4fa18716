/**
 * The tests on real devices with iommufd in one file. Those of all.ts that run with any back end use
 * PEERDMA_VFIO_BACKEND=iommufd; the others are for iommufd alone.
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
import './doctor.test.ts';
import './edu-factorial.test.ts';
import './event-loop.test.ts';
import './hot-reset.test.ts';
import './huge-pages.test.ts';
import './interrupts.test.ts';
import './iommufd/dropping.test.ts';
import './iommufd/files.test.ts';
import './iommufd/leaks.test.ts';
import './iommufd/life.test.ts';
import './iommufd/lost-mappings.test.ts';
import './iommufd/malformed.test.ts';
import './iommufd/older-kernel.test.ts';
import './iommufd/revocation.test.ts';
import './iommufd/strangers.test.ts';
import './iommufd/truncated.test.ts';
import './iommufd/wrong-caller.test.ts';
import './iommufd/wrong-order.test.ts';
import './nvme.test.ts';
import './opening.test.ts';
import './peer-to-peer.test.ts';
import './process-death.test.ts';
import './random-programs.test.ts';
import './topology.test.ts';
import './vf-token.test.ts';
