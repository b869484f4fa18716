//! A thread that posts exits as that of a processor does, and measures the time until their answers.

use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use napi::bindgen_prelude::{AsyncTask, FromNapiValue, Function, Unknown};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi::{Env, Status, Task, check_status, sys};
use napi_derive::napi;
use peerdma_core::kvm::{Exit, ExitCell, Exits, Next};

/// The number of a read of a port.
const PORT_READ: u32 = 1;

/// The methods of a machine that the exit loop calls, for one processor without a guest.
#[napi]
pub struct ExitSource {
    exits: Arc<Exits>,
}

#[napi]
impl ExitSource {
    /// `notify` is called when there are exits to take.
    #[napi(factory)]
    pub fn create(
        #[napi(ts_arg_type = "() => void")] notify: Function<'_, (), ()>,
    ) -> napi::Result<Self> {
        let notify = notify
            .build_threadsafe_function::<()>()
            .weak::<true>()
            .callee_handled::<false>()
            .build()?;
        let notify = move || {
            let _: Status = notify.call((), ThreadsafeFunctionCallMode::NonBlocking);
        };
        Ok(Self {
            exits: Arc::new(Exits::new(1, notify)),
        })
    }

    #[napi(ts_return_type = "ArrayBuffer")]
    pub fn exit_cells<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        let cells = self.exits.cells();
        let address = ptr::from_ref(cells).cast::<ExitCell>().expose_provenance();
        let mut value = ptr::null_mut();
        std::mem::forget(Arc::clone(&self.exits)); // the buffer uses the cells until the process ends
        // SAFETY: the cells stay where they are, and all of their fields are atomic.
        check_status!(unsafe {
            sys::napi_create_external_arraybuffer(
                env.raw(),
                ptr::with_exposed_provenance_mut(address),
                size_of_val(cells),
                None,
                ptr::null_mut(),
                &raw mut value,
            )
        })?;
        // SAFETY: created just now, in this call's scope.
        unsafe { Unknown::from_napi_value(env.raw(), value) }
    }

    #[napi]
    pub fn next_exit(&self) -> i32 {
        match self.exits.next() {
            Next::Exit(_) => 0,
            Next::Idle => -1,
            Next::TurnOver => -2,
        }
    }

    #[napi]
    pub fn answer_exit(&self, processor: u32) -> i32 {
        self.answer_later(processor);
        self.next_exit()
    }

    #[napi]
    pub fn answer_later(&self, _processor: u32) {
        self.exits.answer(0);
    }

    /// Posts exits on a thread, and returns the nanoseconds of each. It sleeps `pause` microseconds before each.
    /// As many before them warm up. Call it once: the threads of a pool differ.
    #[napi(ts_return_type = "Promise<Array<number>>")]
    pub fn post(&self, count: u32, pause: u32) -> AsyncTask<Posting> {
        AsyncTask::new(Posting {
            exits: Arc::clone(&self.exits),
            count,
            pause: Duration::from_micros(u64::from(pause)),
        })
    }
}

pub struct Posting {
    exits: Arc<Exits>,
    count: u32,
    pause: Duration,
}

impl Task for Posting {
    type Output = Vec<f64>;
    type JsValue = Vec<f64>;

    fn compute(&mut self) -> napi::Result<Vec<f64>> {
        let exit = Exit {
            kind: PORT_READ,
            length: 4,
            address: 0x3f8,
            data: 0,
        };
        let mut times = Vec::new();
        for _ in 0..self.count.saturating_mul(2) {
            if !self.pause.is_zero() {
                std::thread::sleep(self.pause);
            }
            let began = Instant::now();
            if self.exits.post(0, exit).is_none() {
                break;
            }
            times.push(began.elapsed().as_nanos() as f64);
        }
        let warm = times.len() / 2;
        Ok(times.split_off(warm))
    }

    fn resolve(&mut self, _: Env, times: Vec<f64>) -> napi::Result<Vec<f64>> {
        Ok(times)
    }
}
