"""PCI: configuration spaces, functions and the fabric they sit in; then the kernel's view of them.

The hardware half (`bdf`, `config`, `header`, `capabilities`, `bars`, `function`, `fabric`, `ecam`,
`conf1`, `registers`) answers what a bus would answer. It knows no driver and no file.
"""
