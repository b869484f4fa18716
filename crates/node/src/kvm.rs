//! Virtual machines of KVM.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use napi::bindgen_prelude::{
    AsyncTask, BigUint64ArraySlice, ClassInstance, FromNapiValue, Function, Object, Unknown,
};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi::{Env, Status, check_status, sys};
use napi_derive::napi;
use peerdma_core::kvm::{Doorbell, ExitCell, Exits, Machine, MsiRoute, Next};
use peerdma_core::{Range, Result};

use crate::batch::{
    MapTask, NativeFailure, NativeMapFailure, UnmapTask, failures, map_failure, read_batch,
    read_ranges,
};
use crate::device::NativeVfioDevice;
use crate::environment::finalize_handles;
use crate::error::{invalid, or_throw};
use crate::event::NativeEventFd;
use crate::memory::NativeMemoryFile;
use crate::numbers::{Index, U64, Words};
use crate::reservation::NativeReservation;
use crate::space::space_methods;
use crate::task::Work;

/// The results of `nextExit` that are not processors.
const IDLE: i32 = -1;
const TURN_OVER: i32 = -2;

/// The largest number of processors, so that a number from JavaScript allocates little.
const MAX_PROCESSORS: usize = 1024;

/// A virtual machine: memory slots, processors and interrupts.
#[napi(custom_finalize)]
pub struct NativeMachine {
    space: Machine,
}

finalize_handles!(NativeMachine);

#[napi]
impl NativeMachine {
    /// Creates a machine with paused processors.
    ///
    /// `notify` is called when there are exits to take with `nextExit`. It does not keep a process or worker alive.
    #[napi(factory)]
    pub fn create(
        env: &Env,
        processors: Index,
        #[napi(ts_arg_type = "() => void")] notify: Function<'_, (), ()>,
    ) -> napi::Result<Self> {
        let notify = notify
            .build_threadsafe_function::<()>()
            .weak::<true>()
            .callee_handled::<false>()
            .build()?;
        let notify = move || {
            // The call fails only when the environment ends: there is no receiver then.
            let _: Status = notify.call((), ThreadsafeFunctionCallMode::NonBlocking);
        };
        or_throw(env, || {
            let count = usize::try_from(processors.0).ok();
            let count = count.filter(|count| *count <= MAX_PROCESSORS);
            let count = count.ok_or_else(|| {
                invalid(format!(
                    "{} processors exceed {MAX_PROCESSORS}",
                    processors.0
                ))
            })?;
            let space = Machine::new(Arc::new(Exits::new(count, notify)))?;
            Ok(Self { space })
        })
    }

    /// The largest number of mappings.
    #[napi(getter)]
    pub fn slots(&self) -> u32 {
        self.space.info().slots
    }

    /// The exits of all processors, 64 bytes each.
    ///
    /// An exit is kind (32 bits), width (32 bits), address (64 bits) and data (64 bits).
    #[napi(ts_return_type = "ArrayBuffer")]
    pub fn exit_cells<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        cells_buffer(env, self.space.exits())
    }

    /// Returns a processor that has posted an exit, -1, or -2 when the event loop is due for a turn.
    ///
    /// Call it after each notification until it returns -1; after -2, when the event loop has had a turn.
    #[napi]
    pub fn next_exit(&self) -> i32 {
        self.next()
    }

    /// Answers the exit that `nextExit` has returned, with the data in its cell. Returns the next one, or -1.
    #[napi]
    pub fn answer_exit(&self, processor: u32) -> i32 {
        self.answer_later(processor);
        self.next()
    }

    /// Answers an exit outside of a notification.
    #[napi]
    pub fn answer_later(&self, processor: u32) {
        if let Ok(index) = usize::try_from(processor) {
            self.space.exits().answer(index);
        }
    }

    /// Lets the processors execute the guest.
    #[napi]
    pub fn run(&self, env: &Env) -> napi::Result<()> {
        or_throw(env, || self.space.run())
    }

    /// Makes all processors leave the guest. Does not wait for them.
    #[napi]
    pub fn request_pause(&self) {
        self.space.request_pause();
    }

    /// Makes all processors leave the guest after a failure, and ends waits of `pauseAsync`.
    ///
    /// A processor whose access has failed gets no answer.
    #[napi]
    pub fn fail(&self) {
        self.space.fail();
    }

    /// Waits, on a thread, until no processor executes the guest after `requestPause`.
    ///
    /// Each has completed its last exit then, unless something else was requested.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn pause_async<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        promise_of(env, |then| self.space.when_paused(then))
    }

    /// Keeps all processors out of the guest until `release`. Returns a promise if some have not left it yet.
    #[napi(ts_return_type = "Promise<void> | null")]
    pub fn hold<'env>(&self, env: &'env Env) -> napi::Result<Option<Object<'env>>> {
        if self.space.hold() {
            return Ok(None);
        }
        promise_of(env, |then| self.space.when_held(then))
            .inspect_err(|_| self.space.release())
            .map(Some)
    }

    /// Ends one `hold`.
    #[napi]
    pub fn release(&self) {
        self.space.release();
    }

    /// Returns all processors and interrupt controllers to their power-on state.
    #[napi]
    pub fn reset(&self, env: &Env) -> napi::Result<()> {
        or_throw(env, || self.space.reset())
    }

    /// Returns the registers of a processor as words.
    #[napi]
    pub fn registers(&self, env: &Env, processor: Index) -> napi::Result<Words> {
        or_throw(env, || self.space.registers(index(processor)?).map(Words))
    }

    /// Sets the registers of a processor. With `wake`, a halted processor continues.
    #[napi]
    pub fn set_registers(
        &self,
        env: &Env,
        processor: Index,
        words: BigUint64ArraySlice<'_>,
        wake: bool,
    ) -> napi::Result<()> {
        or_throw(env, || {
            self.space.set_registers(index(processor)?, &words, wake)
        })
    }

    /// Returns the guest-physical address of a linear address of a processor, if its page tables have one.
    #[napi]
    pub fn translate(&self, env: &Env, processor: Index, linear: U64) -> napi::Result<Option<U64>> {
        or_throw(env, || {
            let found = self.space.translate(index(processor)?, linear.0)?;
            Ok(found.map(U64))
        })
    }

    /// Sets the level of an interrupt line.
    #[napi]
    pub fn set_line(&self, env: &Env, line: Index, high: bool) -> napi::Result<()> {
        or_throw(env, || self.space.set_line(line.as_u32("line")?, high))
    }

    /// Makes an eventfd raise an interrupt. With `resample`, the interrupt is a level, which ends when the guest
    /// acknowledges it: `resample` is signalled then.
    ///
    /// Returns the number of the connection for `disconnect`. The eventfd stays open meanwhile.
    #[napi]
    pub fn connect(
        &self,
        env: &Env,
        event: &NativeEventFd,
        gsi: Index,
        resample: Option<&NativeEventFd>,
    ) -> napi::Result<u32> {
        or_throw(env, || {
            let resample = resample.map(NativeEventFd::event).transpose()?;
            self.space
                .connect(event.event()?, gsi.as_u32("interrupt")?, resample)
        })
    }

    /// Ends a connection of `connect` or `addDoorbell`.
    #[napi]
    pub fn disconnect(&self, env: &Env, connection: u32) -> napi::Result<()> {
        or_throw(env, || self.space.disconnect(connection))
    }

    /// Replaces the messages of interrupts. A route is three words: number, address and data.
    #[napi]
    pub fn set_routes(&self, env: &Env, routes: BigUint64ArraySlice<'_>) -> napi::Result<()> {
        or_throw(env, || self.space.set_routes(&read_routes(&routes)?))
    }

    /// Sends a message (MSI) once.
    #[napi]
    pub fn send_message(&self, env: &Env, address: U64, data: u32) -> napi::Result<()> {
        or_throw(env, || self.space.send_message(address.0, data))
    }

    /// Records that the guest has a device. KVM keeps the device in use until `removeDevice`.
    #[napi]
    pub fn add_device(&self, env: &Env, device: &NativeVfioDevice) -> napi::Result<()> {
        or_throw(env, || self.space.add_device(device.device()))
    }

    /// Ends the effect of `addDevice`, before the device is closed.
    #[napi]
    pub fn remove_device(&self, env: &Env, device: &NativeVfioDevice) -> napi::Result<()> {
        or_throw(env, || self.space.remove_device(device.device()))
    }

    /// Makes writes of the guest signal an eventfd instead of an exit.
    ///
    /// All writes do, or those of `width` bytes with a value. Returns the number of the connection, as `connect`.
    #[napi]
    pub fn add_doorbell(
        &self,
        env: &Env,
        event: &NativeEventFd,
        is_port: bool,
        address: U64,
        width: Option<u32>,
        value: Option<U64>,
    ) -> napi::Result<u32> {
        let doorbell = Doorbell {
            is_port,
            address: address.0,
            only: width.zip(value.map(|value| value.0)),
        };
        or_throw(env, || self.space.add_doorbell(event.event()?, doorbell))
    }
}

impl NativeMachine {
    fn next(&self) -> i32 {
        match self.space.exits().next() {
            Next::Exit(index) => i32::try_from(index).unwrap_or(IDLE),
            Next::Idle => IDLE,
            Next::TurnOver => TURN_OVER,
        }
    }
}

space_methods!(NativeMachine);

/// Returns a promise that resolves when the argument of `start` is called, on any thread.
///
/// It does not use the threads of the pool: handlers may need those to answer.
fn promise_of<'env>(
    env: &'env Env,
    start: impl FnOnce(Box<dyn FnOnce() + Send>) -> Result<()>,
) -> napi::Result<Object<'env>> {
    let (deferred, promise) = env.create_deferred()?;
    let done: fn(Env) -> napi::Result<()> = |_| Ok(());
    let on_thread = deferred.clone();
    let started = start(Box::new(move || on_thread.resolve(done)));
    if started.is_err() {
        deferred.resolve(done); // an open promise keeps the process alive
    }
    or_throw(env, || started)?;
    Ok(promise)
}

fn index(processor: Index) -> Result<usize> {
    usize::try_from(processor.0).map_err(|_| invalid("the virtual machine has fewer processors"))
}

fn read_routes(words: &[u64]) -> Result<Vec<MsiRoute>> {
    let (groups, rest) = words.as_chunks::<3>();
    let narrow = |word: u64| u32::try_from(word).map_err(|_| invalid("a route exceeds 32 bits"));
    if !rest.is_empty() {
        return Err(invalid("routes must consist of number, address and data"));
    }
    let route = |[gsi, address, data]: &[u64; 3]| {
        Ok(MsiRoute {
            gsi: narrow(*gsi)?,
            address: *address,
            data: narrow(*data)?,
        })
    };
    groups.iter().map(route).collect()
}

/// Creates an `ArrayBuffer` of the cells. It keeps them alive.
fn cells_buffer<'env>(env: &'env Env, exits: &Arc<Exits>) -> napi::Result<Unknown<'env>> {
    let cells = exits.cells();
    let address = ptr::from_ref(cells).cast::<ExitCell>().expose_provenance();
    let hint = Arc::into_raw(Arc::clone(exits)).cast_mut().cast();
    let mut value = ptr::null_mut();
    // SAFETY: `finalize` owns a count of the cells for its single call by Node-API. All fields of a cell are atomic, so
    // that JavaScript may write them at any time.
    check_status!(unsafe {
        sys::napi_create_external_arraybuffer(
            env.raw(),
            ptr::with_exposed_provenance_mut(address),
            size_of_val(cells),
            Some(finalize),
            hint,
            &raw mut value,
        )
    })?;
    // SAFETY: created just now, in this call's scope.
    unsafe { Unknown::from_napi_value(env.raw(), value) }
}

unsafe extern "C" fn finalize(_: sys::napi_env, _: *mut c_void, hint: *mut c_void) {
    // SAFETY: the hint is the count that `cells_buffer` gave to the buffer, and this is called once.
    drop(unsafe { Arc::from_raw(hint.cast::<Exits>().cast_const()) });
}
