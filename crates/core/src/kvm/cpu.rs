//! A virtual processor, and its thread.

use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::thread::JoinHandle;

use kvm_bindings::KVM_INTERNAL_ERROR_DELIVERY_EV;
use kvm_ioctls::{VcpuExit, VcpuFd};
use nix::errno::Errno;

use super::exits::{Exit, Exits};
use super::gate::{Gate, Turn};
use super::kick::Kick;
use super::memory_error;
use super::power_on::CpuPowerOn;
use super::registers;
use super::run_area::{Access, RunArea};
use super::slots::SlotState;
use super::system::{errno_of, start_thread};
use crate::locked::lock;
use crate::space::Space;
use crate::{Error, ErrorCode, Result};

/// The kinds of [`Exit`]. Accesses have the address, width and data; a processor that has stopped has the
/// number of its [`Stop`] in `address`, and the details in `length` and `data`.
mod kind {
    pub(super) const PORT_READ: u32 = 1;
    pub(super) const PORT_WRITE: u32 = 2;
    pub(super) const MEMORY_READ: u32 = 3;
    pub(super) const MEMORY_WRITE: u32 = 4;
    pub(super) const STOPPED: u32 = 5;
}

/// Why a processor has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// It shut down: a triple fault.
    Shutdown,
    /// It halted, and no interrupt can wake it.
    Halted,
    /// The guest asked for an event of this type (`KVM_SYSTEM_EVENT_…`).
    SystemEvent(u32),
    /// The hardware rejected its state, for this reason.
    EntryFailed(u64),
    /// KVM cannot emulate an instruction, or failed in another way (`KVM_INTERNAL_ERROR_…`).
    InternalError(u32),
    /// Its memory at this guest address is not accessible to the host.
    MemoryFault(u64),
    /// `KVM_RUN` failed.
    RunFailed(Errno),
    /// It left the guest for a reason that has no meaning here (`KVM_EXIT_…`).
    UnknownExit(u32),
    /// The host's memory at this guest address has an uncorrectable error. `None`: its slot is gone.
    MemoryError(Option<u64>),
}

/// The guest accessed memory without a slot while an event was delivered.
const DELIVERY_FAILED: Stop = Stop::InternalError(KVM_INTERNAL_ERROR_DELIVERY_EV);

impl Stop {
    /// The number, the detail in 32 bits, and the detail in 64 bits.
    fn exit(self) -> Exit {
        let (reason, length, data) = match self {
            Self::Shutdown => (1, 0, 0),
            Self::Halted => (2, 0, 0),
            Self::SystemEvent(event) => (3, event, 0),
            Self::EntryFailed(reason) => (4, 0, reason),
            Self::InternalError(error) => (5, error, 0),
            Self::MemoryFault(address) => (6, 0, address),
            Self::RunFailed(errno) => (7, (errno as i32).unsigned_abs(), 0),
            Self::UnknownExit(reason) => (8, reason, 0),
            Self::MemoryError(None) => (9, 0, 0),
            Self::MemoryError(Some(address)) => (9, 1, address),
        };
        Exit {
            kind: kind::STOPPED,
            length,
            address: reason,
            data,
        }
    }
}

/// Why `KVM_RUN` returned.
enum Outcome {
    Access(Access),
    /// A signal, or the completion of an exit.
    Again,
    Stopped(Stop),
}

/// A processor.
#[derive(Debug)]
pub(super) struct Cpu {
    /// Locked while the processor is in the guest. `None` after the machine is closed.
    fd: Arc<Mutex<Option<VcpuFd>>>,
    thread: Option<JoinHandle<()>>,
    power_on: CpuPowerOn,
}

impl Cpu {
    /// Starts the thread of a processor, which waits at the gate.
    pub(super) fn start(
        index: usize,
        (fd, power_on): (VcpuFd, CpuPowerOn),
        area: usize,
        gate: &Arc<Gate>,
        exits: &Arc<Exits>,
        space: &Arc<Space<SlotState>>,
    ) -> Result<Self> {
        Kick::interrupt_guest(&fd)?;
        let fd = Arc::new(Mutex::new(Some(fd)));
        let body = Body {
            index,
            fd: Arc::clone(&fd),
            area,
            gate: Arc::clone(gate),
            exits: Arc::clone(exits),
            space: Arc::downgrade(space),
        };
        let operation = "starting the thread of a virtual processor";
        let thread = start_thread(format!("peerdma-cpu{index}"), operation, move || body.run())?;
        Ok(Self {
            fd,
            thread: Some(thread),
            power_on,
        })
    }

    /// Calls `act` with the descriptor.
    ///
    /// # Errors
    /// `ERR_CPU_RUNNING` while the processor executes the guest; `ERR_CLOSED`.
    pub(super) fn with_fd<T>(&self, act: impl FnOnce(&VcpuFd) -> Result<T>) -> Result<T> {
        let guard = match self.fd.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let message =
                    "the virtual processor executes the guest. Pause the virtual machine first";
                return Err(Error::new(ErrorCode::CpuRunning, message));
            }
        };
        let closed = || Error::new(ErrorCode::Closed, "the virtual machine is closed");
        act(guard.as_ref().ok_or_else(closed)?)
    }

    pub(super) fn registers(&self) -> Result<Vec<u64>> {
        self.with_fd(registers::read)
    }

    pub(super) fn set_registers(&self, words: &[u64], wake: bool) -> Result<()> {
        self.with_fd(|fd| registers::write(fd, words, wake))
    }

    /// Returns the processor to its power-on state.
    pub(super) fn reset(&self) -> Result<()> {
        self.with_fd(|fd| self.power_on.restore(fd))
    }

    /// Waits for the thread, whose end was requested, and closes the descriptor.
    pub(super) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // the panic hook has reported a panic
        }
        drop(lock(&self.fd).take());
    }
}

/// The thread of a processor.
struct Body {
    index: usize,
    fd: Arc<Mutex<Option<VcpuFd>>>,
    area: usize,
    gate: Arc<Gate>,
    exits: Arc<Exits>,
    space: Weak<Space<SlotState>>,
}

/// Records the end of the thread when it is dropped.
struct Ended<'a>(&'a Body);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.gate.ended(self.0.index);
    }
}

impl Body {
    fn run(&self) {
        let _ended = Ended(self); // also after a panic, so that nobody waits for this thread
        let _ = self.run_guest();
    }

    /// Executes the guest until the end of the thread is requested. Returns `None` then.
    fn run_guest(&self) -> Option<()> {
        let kick = match Kick::for_this_thread() {
            Ok(kick) => kick,
            Err(error) => {
                let errno = error.errno().unwrap_or(Errno::UnknownErrno);
                self.exits.post(self.index, Stop::RunFailed(errno).exit())?;
                return None;
            }
        };
        // Whether no exit is left to complete.
        let mut completed = true;
        let mut repeated = false;
        loop {
            let turn = self.gate.enter(self.index, completed);
            if turn == Turn::End {
                return None;
            }
            let outcome = self.step(turn == Turn::Complete);
            if self.gate.leave(self.index) {
                kick.take();
            }
            completed = true;
            // KVM on AMD compares the type of an event without its valid bit (Linux 7.3, svm.c,
            // svm_check_emulate_instruction). An exception that was delivered before can remain there until the next
            // entry. So the instruction is executed again, once.
            let repeats = !repeated && matches!(outcome, Outcome::Stopped(DELIVERY_FAILED));
            repeated = repeats;
            match outcome {
                Outcome::Again => {
                    if let Some(address) = memory_error::take() {
                        let stop = Stop::MemoryError(self.guest_address(address));
                        self.exits.post(self.index, stop.exit())?;
                    }
                }
                Outcome::Stopped(_) if repeats => {}
                Outcome::Stopped(stop) => {
                    self.exits.post(self.index, stop.exit())?;
                }
                Outcome::Access(access) => {
                    self.answer(&access)?;
                    completed = false;
                }
            }
        }
    }

    /// The guest address of the memory at an address in this process.
    fn guest_address(&self, address: usize) -> Option<u64> {
        let space = self.space.upgrade()?;
        let state = space.lock();
        state.guest_address(address)
    }

    /// Executes the guest, or only completes the last exit.
    fn step(&self, completes_only: bool) -> Outcome {
        let mut guard = lock(&self.fd);
        let Some(fd) = guard.as_mut() else {
            return Outcome::Stopped(Stop::RunFailed(Errno::EBADF));
        };
        fd.set_kvm_immediate_exit(u8::from(completes_only));
        let stop = match fd.run() {
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => return Outcome::Again,
            Ok(
                VcpuExit::IoIn(..)
                | VcpuExit::IoOut(..)
                | VcpuExit::MmioRead(..)
                | VcpuExit::MmioWrite(..),
            ) => None,
            Ok(VcpuExit::Shutdown) => Some(Stop::Shutdown),
            Ok(VcpuExit::Hlt) => Some(Stop::Halted),
            Ok(VcpuExit::SystemEvent(event, _)) => Some(Stop::SystemEvent(event)),
            Ok(VcpuExit::FailEntry(reason, _)) => Some(Stop::EntryFailed(reason)),
            Ok(VcpuExit::MemoryFault { gpa, .. }) => Some(Stop::MemoryFault(gpa)),
            Ok(VcpuExit::InternalError) => Some(Stop::InternalError(
                RunArea::of(fd, self.area).internal_error(),
            )),
            Ok(_) => Some(Stop::UnknownExit(fd.get_kvm_run().exit_reason)),
            Err(error) => match errno_of(error) {
                Errno::EINTR | Errno::EAGAIN => return Outcome::Again,
                errno => Some(Stop::RunFailed(errno)),
            },
        };
        let access = RunArea::of(fd, self.area).access();
        match (stop, access) {
            (Some(stop), _) => Outcome::Stopped(stop),
            (None, Some(access)) => Outcome::Access(access),
            (None, None) => Outcome::Stopped(Stop::UnknownExit(fd.get_kvm_run().exit_reason)),
        }
    }

    /// Posts each element of an access, and sets the answers. Returns `None` if the thread has to end.
    fn answer(&self, access: &Access) -> Option<()> {
        for element in 0..access.count {
            let exit = Exit {
                kind: match (access.is_port, access.is_write) {
                    (true, false) => kind::PORT_READ,
                    (true, true) => kind::PORT_WRITE,
                    (false, false) => kind::MEMORY_READ,
                    (false, true) => kind::MEMORY_WRITE,
                },
                length: u32::try_from(access.width).ok()?,
                address: access.address,
                data: if access.is_write {
                    self.data(access, element)?
                } else {
                    0
                },
            };
            // The descriptor is not locked meanwhile: the receiver may read the registers.
            let answer = self.exits.post(self.index, exit)?;
            if !access.is_write {
                let mut guard = lock(&self.fd);
                RunArea::of(guard.as_mut()?, self.area).set(access, element, answer);
            }
        }
        Some(())
    }

    fn data(&self, access: &Access, element: usize) -> Option<u64> {
        let mut guard = lock(&self.fd);
        Some(RunArea::of(guard.as_mut()?, self.area).get(access, element))
    }
}
