//! The JavaScript methods of an IOMMU address space, for containers and iommufd.

/// Adds those methods to a class, whose field `space` is the address space.
macro_rules! space_methods {
    ($class:ident) => {
        #[napi]
        impl $class {
            /// Makes mappings, all or none. A request is four words: IOVA, length, flags (bit 0: writable; bit 1: a
            /// file; bit 2: fault in first; from bit 32 on: the index in `files`), and the offset in the reservation
            /// or file. Returns `null` if all are mapped.
            #[napi]
            pub fn map(
                &self,
                env: &Env,
                reservation: Option<&NativeReservation>,
                files: Vec<ClassInstance<'_, NativeMemoryFile>>,
                requests: BigUint64ArraySlice<'_>,
            ) -> napi::Result<Option<NativeMapFailure>> {
                or_throw(env, || {
                    let batch = read_batch(reservation, &files, &requests)?;
                    Ok(map_failure(self.space.map(batch)))
                })
            }

            /// As `map`, on a worker thread.
            #[napi(ts_return_type = "Promise<NativeMapFailure | null>")]
            pub fn map_async(
                &self,
                env: &Env,
                reservation: Option<&NativeReservation>,
                files: Vec<ClassInstance<'_, NativeMemoryFile>>,
                requests: BigUint64ArraySlice<'_>,
            ) -> napi::Result<AsyncTask<MapTask>> {
                or_throw(env, || {
                    let space = self.space.clone();
                    let batch = read_batch(reservation, &files, &requests)?;
                    let map = move || Ok(map_failure(space.map(batch)));
                    Ok(Work::make(map, std::convert::identity))
                })
            }

            /// Removes the mappings that lie wholly in ranges, pairs of start and length, one after another. Returns
            /// the ranges that failed; without `continueAfterFailure`, stops at the first.
            #[napi]
            pub fn unmap(
                &self,
                env: &Env,
                ranges: BigUint64ArraySlice<'_>,
                continue_after_failure: bool,
            ) -> napi::Result<Vec<NativeFailure>> {
                or_throw(env, || {
                    Ok(failures(
                        self.space
                            .unmap(&read_ranges(&ranges)?, continue_after_failure),
                    ))
                })
            }

            /// As `unmap`, on a worker thread.
            #[napi(ts_return_type = "Promise<Array<NativeFailure>>")]
            pub fn unmap_async(
                &self,
                env: &Env,
                ranges: BigUint64ArraySlice<'_>,
                continue_after_failure: bool,
            ) -> napi::Result<AsyncTask<UnmapTask>> {
                or_throw(env, || {
                    let space = self.space.clone();
                    let ranges = read_ranges(&ranges)?;
                    let unmap = move || Ok(failures(space.unmap(&ranges, continue_after_failure)));
                    Ok(Work::make(unmap, std::convert::identity))
                })
            }

            /// The number of recorded mappings.
            #[napi(getter)]
            pub fn mapping_count(&self) -> Index {
                Index(u64::try_from(self.space.mapping_count()).unwrap_or(u64::MAX))
            }

            /// Turns dirty-page logging on or off, on a worker thread.
            #[napi(ts_return_type = "Promise<void>")]
            pub fn set_dirty_tracking(&self, on: bool) -> AsyncTask<Work> {
                let space = self.space.clone();
                Work::run(move || space.set_dirty_tracking(on))
            }

            /// Returns a bit for each page, set if a device may have written it since the last call. Reads the log on
            /// a worker thread.
            #[napi(ts_return_type = "Promise<BigUint64Array>")]
            pub fn dirty_pages(
                &self,
                env: &Env,
                iova: U64,
                length: U64,
                page_size: U64,
            ) -> napi::Result<AsyncTask<Work<Vec<u64>, Words>>> {
                or_throw(env, || {
                    let range = Range::new(iova.0, length.0)?;
                    let space = self.space.clone();
                    let read = move || space.dirty_pages(&range, page_size.0);
                    Ok(Work::make(read, Words))
                })
            }

            /// Closes the address space; fails while a group or device is attached.
            #[napi]
            pub fn close(&self, env: &Env) -> napi::Result<()> {
                or_throw(env, || self.space.close())
            }

            /// As `close`, on a worker thread.
            #[napi(ts_return_type = "Promise<void>")]
            pub fn close_async(&self) -> AsyncTask<Work> {
                let space = self.space.clone();
                Work::run(move || space.close())
            }
        }
    };
}

pub(crate) use space_methods;
