"""A write to sysfs that waits for a pin holds nobody else up, and whoever made it can be killed."""

from nd_machines import PROFILE
from support import Host, need_sandbox

SCRIPT = """
fakedev ctl pin 0x140600000+4K --longterm > /dev/null
sh -c 'echo dax1.0 > /sys/bus/dax/drivers/device_dax/unbind' 2> /dev/null & waiting=$!
sleep 1
echo offline > /sys/devices/system/memory/auto_online_blocks && echo others go on
echo dax9.0 > /sys/bus/dax/drivers/kmem/new_id && echo on the same bus
kill -9 $waiting
wait $waiting
echo killed $?
fakedev ctl unpin 1 > /dev/null
fakedev ctl wait unbind --since 0 > /dev/null && echo done all the same
fakedev ctl pin 0x150000000+4K --longterm > /dev/null
fakedev ctl dax-mode namespace1.1 devdax &
sleep 1
exit 7
"""


def test_a_write_that_waits_for_a_pin(host: Host) -> None:
    need_sandbox()
    done = host.run(PROFILE, "sh", "-c", SCRIPT, timeout=30)
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines() == [
        "others go on",
        "on the same bus",
        "killed 137",
        "done all the same",
    ]


def test_the_machine_ends_while_a_write_waits(host: Host) -> None:
    need_sandbox()
    script = """
        fakedev ctl pin 0x140600000+4K --longterm > /dev/null
        echo dax1.0 > /sys/bus/dax/drivers/device_dax/unbind &
        sleep 1
        exit 7
        """
    assert host.run(PROFILE, "sh", "-c", script, timeout=20).returncode == 7
