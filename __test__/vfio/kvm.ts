/**
 * The tests of virtual machines in one file, as in all.ts.
 *
 * `kvm/linux.test.ts` has a guest of its own, with one processor (docs/decisions.md).
 */
import './kvm/collected.test.ts';
import './kvm/dirty-pages.test.ts';
import './kvm/ends.test.ts';
import './kvm/guide.test.ts';
import './kvm/interrupts.test.ts';
import './kvm/lost-memory.test.ts';
import './kvm/memory.test.ts';
import './kvm/migration.test.ts';
import './kvm/pci.test.ts';
import './kvm/peer-to-peer.test.ts';
import './kvm/processor.test.ts';
import './kvm/reset.test.ts';
import './kvm/slot-limit.test.ts';
import './kvm/start-registers.test.ts';
import './kvm/vmm.test.ts';
import './kvm/vmm-devices.test.ts';
