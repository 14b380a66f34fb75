"""Memory blocks and NUMA nodes in /sys (`drivers/base/memory.c`, `drivers/base/node.c`)."""
