"""Memory that comes and goes: blocks, zones, DIMMs (`drivers/base/memory.c`, `mm/memory_hotplug.c`)."""
