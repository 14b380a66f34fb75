"""The files of PCI: `/sys/bus/pci`, `/sys/devices/pciDDDD:BB`, `/proc/bus/pci`."""
