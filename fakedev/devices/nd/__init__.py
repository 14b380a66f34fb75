"""Memory that is a device: persistent memory (`drivers/nvdimm`), device-dax (`drivers/dax`), CXL."""
