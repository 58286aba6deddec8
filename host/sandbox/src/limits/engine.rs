//! The engine that runs components, and its limits.

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::error::SandboxError;
use crate::limits::clock::Clock;
use crate::settings::{INSTANCES_OF_ONE_MAX, TABLE_ELEMENTS_MAX};

/// Instances at once. More than the calls that the runtime lets run at once and those that wait to be
/// used again, because a component that is loaded runs its `describe`.
pub const INSTANCES_MAX: u32 = 640;

/// Linear memories of one component.
const MEMORIES_OF_ONE_MAX: u32 = 8;

/// Tables of each instance where the system sets memory aside for whatever is mapped
/// (`vm.overcommit_memory = 2`), on average: what a compiler makes.
const TABLES_SPARE: u32 = 4;

/// Of what a call has written, so much is put back; the rest is given back to the system. A small
/// guest writes a tenth of it.
const KEEP_RESIDENT_BYTES: usize = 256 << 10;

/// The wasmtime engine, and the clock that counts its epochs.
#[derive(Debug, Clone)]
pub(crate) struct WasmEngine {
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
}

impl WasmEngine {
    /// Makes an engine for so many instances at once, at most [`INSTANCES_MAX`].
    pub(crate) fn new(instances_max: u32) -> Result<Self, SandboxError> {
        let instances = instances_max.clamp(1, INSTANCES_MAX);
        let of_one = u32::try_from(INSTANCES_OF_ONE_MAX).unwrap_or(u32::MAX);
        // All that all of them may have: so none finds less because others have much. That is room in
        // the address space, 32 GiB for each, so 20 TiB for the most, and no memory.
        Self::with(Self::pool(instances, of_one, instances * of_one))
            // Then a call may find none, and begins when there are some.
            .or_else(|_| {
                Self::with(Self::pool(instances, of_one, of_one.max(instances * TABLES_SPARE)))
            })
    }

    /// Places for so many components of so many core instances and tables, and for all tables together.
    fn pool(instances: u32, of_one: u32, tables: u32) -> InstanceAllocationStrategy {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(instances);
        pool.total_core_instances(instances * of_one);
        pool.total_memories(instances * MEMORIES_OF_ONE_MAX);
        pool.total_tables(tables);
        pool.table_elements(TABLE_ELEMENTS_MAX);
        pool.total_stacks(instances);
        pool.max_core_instances_per_component(of_one);
        pool.max_memories_per_component(MEMORIES_OF_ONE_MAX);
        pool.max_tables_per_component(of_one);
        // What a call has written is put back as it was, instead of giving the pages back to the
        // system and having them faulted in by the next call. Where the kernel cannot say which
        // pages that are, all of them would be: then it is left.
        if PoolingAllocationConfig::is_pagemap_scan_available() {
            pool.pagemap_scan(wasmtime::Enabled::Yes);
            pool.linear_memory_keep_resident(KEEP_RESIDENT_BYTES);
            pool.table_keep_resident(KEEP_RESIDENT_BYTES);
        }
        InstanceAllocationStrategy::Pooling(pool)
    }

    /// For a process that looks at one component: without the pool, which takes address space and time
    /// to be set up. Its code runs in the other.
    pub(crate) fn for_inspection() -> Result<Self, SandboxError> {
        Self::with(InstanceAllocationStrategy::OnDemand)
    }

    fn with(strategy: InstanceAllocationStrategy) -> Result<Self, SandboxError> {
        let mut config = Config::new();
        config.wasm_component_model(true);
        config.epoch_interruption(true);
        config.allocation_strategy(strategy);
        let failed = |error: wasmtime::Error| SandboxError::SetUp(format!("{error:#}"));
        let engine = Engine::new(&config).map_err(failed)?;
        let clock = Clock::new(&engine)?;
        Ok(Self { engine, clock })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    use super::*;

    #[test]
    fn what_is_compiled_for_inspection_runs_in_the_pool() {
        let compiles_for = |sandbox: &WasmEngine| {
            let mut hasher = DefaultHasher::new();
            sandbox.engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let (pool, inspection) =
            (WasmEngine::new(INSTANCES_MAX).unwrap(), WasmEngine::for_inspection().unwrap());
        assert_eq!(compiles_for(&pool), compiles_for(&inspection));
        // That of a namespace.
        let small = WasmEngine::new(48).unwrap();
        assert_eq!(compiles_for(&small), compiles_for(&pool));
    }
}
