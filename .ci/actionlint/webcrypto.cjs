// Go's runtime for WebAssembly wants this global, which Debian 12's Node.js 18 does not set by itself.
globalThis.crypto ??= require("crypto").webcrypto;
