//! Hosts as network namespaces on a switch.
