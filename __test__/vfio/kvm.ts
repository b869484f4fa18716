/**
 * All tests of virtual machines in one file, as in all.ts.
 */
import './kvm/guide.test.ts';
import './kvm/interrupts.test.ts';
import './kvm/memory.test.ts';
import './kvm/pci.test.ts';
import './kvm/processor.test.ts';
