//! A virtual machine: its memory slots, processors and interrupts.

use std::sync::{Arc, Mutex};

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::{Kvm, VmFd};
use nix::errno::Errno;

use super::connections::{Connections, Effect};
use super::cpu::Cpu;
use super::cpuid;
use super::exits::Exits;
use super::gate::Gate;
use super::interrupts::{self, Doorbell, MsiRoute};
use super::power_on::{BoardPowerOn, CpuPowerOn, ModelSpecific};
use super::slots::SlotState;
use super::system::{self, errno_of, failed};
use super::vfio::VfioFiles;
use crate::event::EventFd;
use crate::locked::{lock, owned};
use crate::space::{Handle, Space};
use crate::vfio::Device;
use crate::{Batch, BatchError, Error, ErrorCode, Range, Result};

/// Pages of KVM for Intel, out of guest memory: the identity map, and the task state segment.
const IDENTITY_MAP: u64 = 0xfeff_c000;
const TASK_STATE: usize = 0xfeff_d000;

/// Limits of a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineInfo {
    /// The largest number of mappings.
    pub slots: u32,
}

/// An open virtual machine. Clones share it. After the last clone its processors end, and the dropper's thread removes
/// its mappings.
#[derive(Debug, Clone)]
pub struct Machine {
    // Declared before the handle, so that the processors end before the mappings do.
    parts: Arc<Parts>,
    space: Arc<Space<SlotState>>,
    _handle: Arc<Handle<SlotState>>,
}

#[derive(Debug)]
struct Parts {
    info: MachineInfo,
    gate: Arc<Gate>,
    exits: Arc<Exits>,
    cpus: Mutex<Vec<Cpu>>,
    connections: Mutex<Connections>,
    vfio: Mutex<VfioFiles>,
    board: BoardPowerOn,
}

impl Machine {
    /// Creates a machine with one processor for each cell of `exits`. It has the interrupt controllers and the timer of
    /// a PC, and no memory. Its processors are paused in their power-on state; all but the first wait until the guest
    /// starts them.
    ///
    /// # Errors
    /// `ERR_KVM_UNAVAILABLE`, `ERR_KVM_UNSUPPORTED`; `ERR_INVALID_ARGUMENT` for too many processors; `ERR_SYSTEM`.
    pub fn new(exits: Arc<Exits>) -> Result<Self> {
        let kvm = system::open()?;
        let count = exits.cells().len();
        let most = kvm.get_max_vcpus().min(255); // an APIC id of 8 bits
        if count == 0 || count > most {
            let message = format!("a virtual machine has 1 to {most} processors here, not {count}");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let vm = Arc::new(create_vm(&kvm)?);
        set_up(&vm)?;
        let slots = u32::try_from(kvm.get_nr_memslots()).unwrap_or(u32::MAX);
        let space = Space::new(SlotState::new(Arc::clone(&vm), slots), ());
        let mut parts = Parts {
            info: MachineInfo { slots },
            gate: Arc::new(Gate::new(count)),
            exits,
            cpus: Mutex::default(),
            connections: Mutex::default(),
            vfio: Mutex::default(),
            board: BoardPowerOn::read(&vm)?,
        };
        // If this fails, the drop ends the threads that have started.
        parts.start_processors(&kvm, &vm, count, &space)?;
        Ok(Self {
            parts: Arc::new(parts),
            _handle: Handle::new(&space),
            space,
        })
    }

    /// The limits of the machine.
    #[must_use]
    pub fn info(&self) -> MachineInfo {
        self.parts.info
    }

    /// The exits of its processors.
    #[must_use]
    pub fn exits(&self) -> &Arc<Exits> {
        &self.parts.exits
    }

    /// Makes all mappings of a batch or none.
    ///
    /// # Errors
    /// `ERR_MAP_FAILED`, `ERR_MAPPING_LIMIT` if all slots are in use, `ERR_OVERLAP`, `ERR_UNALIGNED`, `ERR_CLOSED`; as
    /// [`Batch`].
    pub fn map(&self, mut batch: Batch) -> Result<(), BatchError> {
        batch.fault_in()?;
        self.space
            .map(&mut batch, |state, request, memory, removed| {
                state.map(request, memory, removed)
            })
    }

    /// Unmaps ranges, and returns those that failed; without `continue_after_failure`, stops at the first.
    #[must_use]
    pub fn unmap(&self, ranges: &[Range], continue_after_failure: bool) -> Vec<(usize, Error)> {
        self.space.unmap(ranges, continue_after_failure)
    }

    /// Returns the number of recorded mappings. Does not wait for a call in progress.
    #[must_use]
    pub fn mapping_count(&self) -> usize {
        self.space.count()
    }

    /// Turns the dirty log of guest writes on or off.
    ///
    /// # Errors
    /// `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn set_dirty_tracking(&self, on: bool) -> Result<()> {
        self.space.lock().set_dirty_tracking(on)
    }

    /// Returns a bit for each page of 4 KiB, set if the guest has written it since the last call.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT`, `ERR_UNALIGNED`, `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn dirty_pages(&self, range: &Range, page_size: u64) -> Result<Vec<u64>> {
        self.space.lock().dirty_pages(range, page_size)
    }

    /// Lets the processors execute the guest.
    ///
    /// # Errors
    /// `ERR_CLOSED`.
    pub fn run(&self) -> Result<()> {
        self.vm()?;
        if self.parts.gate.is_ended() {
            let message = "the processors of the virtual machine have ended";
            return Err(Error::new(ErrorCode::Closed, message));
        }
        self.parts.gate.run();
        Ok(())
    }

    /// Makes all processors leave the guest. Does not wait for them.
    pub fn request_pause(&self) {
        self.parts.gate.request_pause();
    }

    /// Makes all processors leave the guest after a failure. Does not wait for them.
    ///
    /// Exits may get no answer, so it ends all waits of [`when_paused`](Self::when_paused).
    pub fn fail(&self) {
        self.parts.gate.fail();
    }

    /// Calls `then` on a thread when the processors are paused.
    ///
    /// Call it after [`request_pause`](Self::request_pause). Each has completed its last exit then, which somebody else
    /// has to answer. Calls `then` early if something else is requested, or the machine is closed or dropped.
    ///
    /// # Errors
    /// `ERR_SYSTEM` if the thread cannot start.
    pub fn when_paused(&self, then: impl FnOnce() + Send + 'static) -> Result<()> {
        self.when(Gate::wait_paused, then)
    }

    /// Lets no processor enter the guest until [`release`](Self::release), and makes them leave it. Does not wait for
    /// them. Returns whether all are out. Exits may have no answer yet, unlike after
    /// [`when_paused`](Self::when_paused).
    #[must_use]
    pub fn hold(&self) -> bool {
        self.parts.gate.hold()
    }

    /// Calls `then` on a thread after [`hold`](Self::hold), when all processors are out of the guest. Calls it early
    /// after its release.
    ///
    /// # Errors
    /// `ERR_SYSTEM` if the thread cannot start.
    pub fn when_held(&self, then: impl FnOnce() + Send + 'static) -> Result<()> {
        self.when(Gate::wait_held, then)
    }

    /// Ends one [`hold`](Self::hold).
    pub fn release(&self) {
        self.parts.gate.release();
    }

    /// Returns all processors and interrupt controllers to their power-on state. Memory and connections stay.
    ///
    /// # Errors
    /// `ERR_CPU_RUNNING`, `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn reset(&self) -> Result<()> {
        let vm = self.vm()?;
        if !self.parts.gate.is_paused() {
            let message = "a virtual processor has not completed its last access. Pause the virtual machine first";
            return Err(Error::new(ErrorCode::CpuRunning, message));
        }
        for cpu in lock(&self.parts.cpus).iter() {
            cpu.reset()?;
        }
        self.parts.board.restore(&vm)
    }

    /// Returns the registers of a processor as words.
    ///
    /// # Errors
    /// `ERR_CPU_RUNNING`, `ERR_CLOSED`, `ERR_SYSTEM`; `ERR_INVALID_ARGUMENT` for another index.
    pub fn registers(&self, index: usize) -> Result<Vec<u64>> {
        self.cpu(index, Cpu::registers)
    }

    /// Sets the registers of a processor. With `wake`, a halted processor continues. One that waits for its start by
    /// another processor still waits.
    ///
    /// # Errors
    /// As [`registers`](Self::registers); `ERR_INVALID_ARGUMENT` for another number of words; `ERR_SYSTEM` for values
    /// that the processor rejects.
    pub fn set_registers(&self, index: usize, words: &[u64], wake: bool) -> Result<()> {
        self.cpu(index, |cpu| cpu.set_registers(words, wake))
    }

    /// Returns the guest-physical address of a linear address of a processor, if its page tables have one.
    ///
    /// # Errors
    /// As [`registers`](Self::registers).
    pub fn translate(&self, index: usize, linear: u64) -> Result<Option<u64>> {
        let operation = "translating a linear address";
        self.cpu(index, |cpu| {
            cpu.with_fd(|fd| {
                let found = fd
                    .translate_gva(linear)
                    .map_err(failed("ioctl(KVM_TRANSLATE)", operation))?;
                Ok((found.valid != 0).then_some(found.physical_address))
            })
        })
    }

    /// Sets the level of an interrupt line.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn set_line(&self, line: u32, high: bool) -> Result<()> {
        if line >= interrupts::LINES {
            let most = interrupts::LINES.saturating_sub(1);
            let message = format!("an interrupt line has a number from 0 to {most}, not {line}");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let operation = format!("setting interrupt line {line}");
        self.vm()?
            .set_irq_line(line, high)
            .map_err(failed("ioctl(KVM_IRQ_LINE)", operation))
    }

    /// Makes an eventfd raise an interrupt. With `resample`, the interrupt is a level, which ends when the guest
    /// acknowledges it: `resample` is signalled then.
    ///
    /// Returns the number of the connection. It keeps the eventfd open until [`disconnect`](Self::disconnect).
    ///
    /// # Errors
    /// `ERR_CLOSED`, `ERR_SYSTEM` (`EBUSY`: it is connected already).
    pub fn connect(&self, event: &EventFd, gsi: u32, resample: Option<&EventFd>) -> Result<u32> {
        let vm = self.vm()?;
        let effect = Effect::Interrupt(gsi);
        lock(&self.parts.connections).add(&vm, event, effect, resample)
    }

    /// Makes writes of the guest signal an eventfd instead of an exit.
    ///
    /// Returns the number of the connection. It keeps the eventfd open until [`disconnect`](Self::disconnect).
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`, `ERR_SYSTEM` (`EEXIST`: the address has such a doorbell).
    pub fn add_doorbell(&self, event: &EventFd, doorbell: Doorbell) -> Result<u32> {
        let vm = self.vm()?;
        let effect = Effect::Doorbell(doorbell);
        lock(&self.parts.connections).add(&vm, event, effect, None)
    }

    /// Ends a connection of an eventfd.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for another number, `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn disconnect(&self, connection: u32) -> Result<()> {
        let vm = self.vm()?;
        lock(&self.parts.connections).remove(&vm, connection)
    }

    /// Replaces the messages that numbers of interrupts are routed to.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn set_routes(&self, routes: &[MsiRoute]) -> Result<()> {
        interrupts::set_routes(&*self.vm()?, routes)
    }

    /// Sends a message (MSI) once.
    ///
    /// # Errors
    /// `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn send_message(&self, address: u64, data: u32) -> Result<()> {
        interrupts::send(&*self.vm()?, address, data)
    }

    /// Records that the guest has a device. KVM keeps the device in use until [`remove_device`](Self::remove_device).
    ///
    /// # Errors
    /// `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn add_device(&self, device: &Device) -> Result<()> {
        lock(&self.parts.vfio).add(&*self.vm()?, device)
    }

    /// Ends the effect of [`add_device`](Self::add_device), before the device is closed.
    ///
    /// # Errors
    /// `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn remove_device(&self, device: &Device) -> Result<()> {
        lock(&self.parts.vfio).remove(&*self.vm()?, device)
    }

    /// Ends the processors, removes all mappings, and closes the machine; a second call does nothing. Exits without an
    /// answer are cancelled.
    ///
    /// # Errors
    /// `ERR_UNMAP_FAILED`: that memory stays mapped.
    pub fn close(&self) -> Result<()> {
        self.parts.end();
        *lock(&self.parts.vfio) = VfioFiles::default();
        *lock(&self.parts.connections) = Connections::default();
        self.space.change(|state, removed| {
            if state.open().is_ok() {
                crate::space::SpaceState::unmap_all(state, removed)?;
                state.close();
            }
            Ok(())
        })
    }

    fn when(&self, wait: fn(&Gate), then: impl FnOnce() + Send + 'static) -> Result<()> {
        // Not the machine: its drop ends the wait.
        let gate = Arc::clone(&self.parts.gate);
        let operation = "starting a thread that waits for virtual processors";
        let body = move || {
            wait(&gate);
            then();
        };
        system::start_thread("peerdma-wait".into(), operation, body).map(drop)
    }

    fn vm(&self) -> Result<Arc<VmFd>> {
        self.space.lock().open().cloned()
    }

    fn cpu<T>(&self, index: usize, act: impl FnOnce(&Cpu) -> Result<T>) -> Result<T> {
        let cpus = lock(&self.parts.cpus);
        match cpus.get(index) {
            Some(cpu) => act(cpu),
            None => {
                let message = format!("the virtual machine has no processor {index}");
                Err(Error::new(ErrorCode::InvalidArgument, message))
            }
        }
    }
}

fn create_vm(kvm: &Kvm) -> Result<VmFd> {
    loop {
        return match kvm.create_vm() {
            Err(error) if errno_of(error) == Errno::EINTR => continue,
            result => result.map_err(failed("ioctl(KVM_CREATE_VM)", "creating a virtual machine")),
        };
    }
}

fn set_up(vm: &VmFd) -> Result<()> {
    let operation = "setting up a virtual machine";
    vm.set_identity_map_address(IDENTITY_MAP)
        .map_err(failed("ioctl(KVM_SET_IDENTITY_MAP_ADDR)", operation))?;
    vm.set_tss_address(TASK_STATE)
        .map_err(failed("ioctl(KVM_SET_TSS_ADDR)", operation))?;
    vm.create_irq_chip()
        .map_err(failed("ioctl(KVM_CREATE_IRQCHIP)", operation))?;
    let timer = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY, // port 0x61 is handled with the timer
        ..Default::default()
    };
    vm.create_pit2(timer)
        .map_err(failed("ioctl(KVM_CREATE_PIT2)", operation))
}

impl Parts {
    fn start_processors(
        &mut self,
        kvm: &Kvm,
        vm: &VmFd,
        count: usize,
        space: &Arc<Space<SlotState>>,
    ) -> Result<()> {
        let supported = cpuid::supported(kvm)?;
        let area = kvm.get_vcpu_mmap_size().map_err(failed(
            "ioctl(KVM_GET_VCPU_MMAP_SIZE)",
            "creating a virtual processor",
        ))?;
        let processors = u32::try_from(count).unwrap_or(u32::MAX);
        let mut model_specific = None;
        for id in 0..processors {
            let operation = format!("creating virtual processor {id}");
            let fd = vm
                .create_vcpu(u64::from(id))
                .map_err(failed("ioctl(KVM_CREATE_VCPU)", &operation))?;
            // The rate of the host's TSC (0). Without a constant TSC, KVM gives a processor the rate that the host had
            // measured when KVM started. If Linux has refined it by more than 250 ppm since, that fails without an
            // error (x86.c, kvm_set_tsc_khz), and timers with a TSC deadline expire late by the uptime of the host. A
            // host without a rate refuses this call, and has no such timers.
            let _ = fd.set_tsc_khz(0);
            let cpuid = cpuid::of_processor(&supported, id, processors)?;
            fd.set_cpuid2(&cpuid)
                .map_err(failed("ioctl(KVM_SET_CPUID2)", &operation))?;
            let cpus = owned(&mut self.cpus);
            let model_specific = match &mut model_specific {
                Some(known) => known,
                none => none.insert(ModelSpecific::probe(kvm, &fd)?),
            };
            let power_on = CpuPowerOn::read(kvm, vm, &fd, model_specific)?;
            let cpu = Cpu::start(
                cpus.len(),
                (fd, power_on),
                area,
                &self.gate,
                &self.exits,
                space,
            )?;
            cpus.push(cpu);
        }
        Ok(())
    }

    /// Ends the threads of all processors, and waits for them.
    fn end(&self) {
        self.gate.end();
        let mut cpus = lock(&self.cpus);
        for index in 0..cpus.len() {
            self.exits.cancel(index);
        }
        cpus.iter_mut().for_each(Cpu::join);
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.end();
    }
}
