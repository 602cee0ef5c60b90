//! Tests of `parked`.
