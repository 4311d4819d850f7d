//! Arithmetic of limits: quotas, costs, operations and what they tell, and the plain model of what the
//! script does. It knows no names: no key, no caller, no policy.

pub mod cost;
pub mod limit;
pub mod model;
pub mod operation;
pub mod packed;
pub mod period;
