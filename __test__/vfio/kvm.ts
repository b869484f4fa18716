/**
 * All tests of virtual machines in one file, as in all.ts.
 */
import './kvm/interrupts.test.ts';
import './kvm/memory.test.ts';
import './kvm/processor.test.ts';
import './kvm/vmm-devices.test.ts';
