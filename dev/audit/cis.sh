# Checks of the kind that the CIS benchmark for Debian has, as far as they fit a server without people on it: `check`
# takes what is wanted and a command that succeeds where it is so. Lines on standard output: `ok` or `no`, and the want.

export LC_ALL=C
check() {
    want=$1
    shift
    if (eval "$@") >/dev/null 2>&1; then echo "ok $want"; else echo "no $want"; fi
}
absent() { ! dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }
kernel() { [ "$(cat "/proc/sys/$1")" "${3:--eq}" "$2" ]; }
sshd_says() { sshd -T -C user=root,host=x,addr=192.0.2.1 2>/dev/null | grep -qix "$1"; }
mode() { [ -z "$(find "$1" -maxdepth 0 -perm "/$2" 2>/dev/null)" ] && [ "$(stat -c %U "$1")" = root ]; }
option() { findmnt -n -o OPTIONS "$1" | tr , '\n' | grep -qx "$2"; }

# File systems and what can be loaded.
for name in cramfs freevxfs hfs hfsplus jffs2 udf; do
    check "no file system $name" "! grep -qw $name /proc/filesystems"
done
for name in dccp sctp rds tipc; do check "no protocol $name" "! grep -q '^$name ' /proc/modules"; done
for option in nosuid nodev; do
    check "/dev/shm is $option" "option /dev/shm $option"
    check "/tmp is $option" "option /tmp $option"
done

# What isn't needed.
for name in avahi-daemon cups isc-dhcp-server bind9 vsftpd dovecot-core nfs-kernel-server slapd rpcbind samba snmpd squid \
    telnet telnetd nis rsh-client talk ldap-utils ftp tftpd-hpa xserver-common xinetd apache2 prelink apport \
    autofs inetutils-telnetd ypserv; do
    check "no $name" "absent $name"
done
check "mail is taken on loopback alone" "! ss -Hltn 'sport = :25' | grep -v -e 127.0.0.1 -e '\[::1\]' | grep -q ."

# Packages.
check "packages are signed" "! apt-config dump | grep -qi 'AllowUnauthenticated \"\\(1\\|true\\)'"
check "security updates come by themselves" "apt-config dump | grep -q 'Periodic::Unattended-Upgrade \"1\"'"
check "something sets the clock" "systemctl is-enabled systemd-timesyncd chrony ntpsec | grep -qx enabled"
check "programs are compared with their packages" "systemctl is-enabled bitrix-cdn-integrity.timer"
check "auditd records" "systemctl is-active auditd"
check "AppArmor is there" "! absent apparmor"

# The kernel.
check "addresses are random" "kernel kernel/randomize_va_space 2"
check "processes don't look into each other" "kernel kernel/yama/ptrace_scope 1 -ge || [ ! -e /proc/sys/kernel/yama ]"
check "the kernel's log is root's" "kernel kernel/dmesg_restrict 1"
for name in hardlinks symlinks; do check "protected $name" "kernel fs/protected_$name 1"; done
for kind in all default; do
    for name in accept_redirects secure_redirects send_redirects accept_source_route; do
        check "IPv4 $kind $name off" "kernel net/ipv4/conf/$kind/$name 0"
    done
    check "IPv4 $kind rp_filter" "kernel net/ipv4/conf/$kind/rp_filter 1 -ge"
    check "IPv4 $kind log_martians" "kernel net/ipv4/conf/$kind/log_martians 1"
    for name in accept_redirects accept_source_route; do
        check "IPv6 $kind $name off" "kernel net/ipv6/conf/$kind/$name 0"
    done
done
check "IPv4 is not forwarded" "kernel net/ipv4/ip_forward 0"
check "broadcasts are not answered" "kernel net/ipv4/icmp_echo_ignore_broadcasts 1"
check "bogus answers are ignored" "kernel net/ipv4/icmp_ignore_bogus_error_responses 1"
check "SYN cookies" "kernel net/ipv4/tcp_syncookies 1"
check "a firewall refuses what nobody is told of" "nft list chain inet bitrix_cdn others || nft list ruleset | grep -q 'policy drop'"

# SSH.
for line in "permitemptypasswords no" "permituserenvironment no" "ignorerhosts yes" "hostbasedauthentication no" \
    "x11forwarding no" "gssapiauthentication no" "usepam yes" "passwordauthentication no" "maxauthtries 4" \
    "logingracetime 30" "clientalivecountmax 3" "clientaliveinterval 300" "maxsessions 10" "allowagentforwarding no"; do
    check "sshd: $line" "sshd_says '$line'"
done
check "sshd: root without a password" "sshd_says 'permitrootlogin (no|without-password)' || sshd_says 'permitrootlogin no' || sshd_says 'permitrootlogin without-password'"
check "sshd: level of the log" "sshd_says 'loglevel info' || sshd_says 'loglevel verbose'"
check "sshd: half-open logins are limited" "sshd_says 'maxstartups 10:30:60'"
check "sshd: a banner" "! sshd_says 'banner none'"
check "sshd: who may log in is named" "sshd_says 'allowusers .*' || sshd_says 'allowgroups .*'"
check "sshd: no weak cipher" "! sshd -T | grep '^ciphers' | grep -q -e cbc -e arcfour -e 3des"
check "sshd: no weak MAC" "! sshd -T | grep '^macs' | grep -q -e md5 -e sha1 -e umac-64"
check "sshd: no weak exchange" "! sshd -T | grep '^kexalgorithms' | grep -q sha1"
check "sshd_config is root's to read" "mode /etc/ssh/sshd_config 077"
check "host keys are root's to read" "for f in /etc/ssh/ssh_host_*_key; do mode \$f 077 || exit 1; done"

# Cron and at.
check "crontab is root's to read" "[ ! -e /etc/crontab ] || mode /etc/crontab 077"
for name in hourly daily weekly monthly d; do
    check "cron.$name is root's to read" "[ ! -e /etc/cron.$name ] || mode /etc/cron.$name 077"
done
check "who may use cron is named" "[ -e /etc/cron.allow ] || absent cron"
check "who may use at is named" "[ -e /etc/at.allow ] || absent at"

# Accounts.
for name in passwd group; do check "/etc/$name and its copy" "mode /etc/$name 0133 && { [ ! -e /etc/$name- ] || mode /etc/$name- 0133; }"; done
for name in shadow gshadow; do check "/etc/$name and its copy" "mode /etc/$name 0137 && { [ ! -e /etc/$name- ] || mode /etc/$name- 0137; }"; done
check "root alone has uid 0" "[ \"\$(awk -F: '\$3 == 0 { print \$1 }' /etc/passwd)\" = root ]"
check "root's group is 0" "[ \"\$(id -g root)\" = 0 ]"
check "nobody is without a password" "! awk -F: '\$2 == \"\" { print }' /etc/shadow | grep -q ."
check "passwords are in shadow" "! awk -F: '\$2 != \"x\" { print }' /etc/passwd | grep -q ."
check "no number of a group is there twice" "[ -z \"\$(cut -d: -f3 /etc/group | sort | uniq -d)\" ]"
# The account that writes resize_cache is www-data by another name, on purpose.
check "no number of an account is there twice" "[ -z \"\$(cut -d: -f3 /etc/passwd | sort | uniq -d)\" ]"
check "no name is there twice" "[ -z \"\$(cut -d: -f1 /etc/passwd | sort | uniq -d)\" ]"
check "system accounts have no shell" "! awk -F: '\$3 > 0 && \$3 < 1000 && \$7 !~ /(nologin|false|sync)\$/ { print }' /etc/passwd | grep -q ."
check "root's PATH has no place of others" "! echo \$PATH | grep -q -e '::' -e '\\.' "
check "root's home is closed" "mode /root 027"
check "sudo on a terminal of its own" "absent sudo || grep -rqs use_pty /etc/sudoers /etc/sudoers.d"
check "sudo has a log" "absent sudo || grep -rqs logfile /etc/sudoers /etc/sudoers.d"
check "su is for few" "grep -qs '^auth.*pam_wheel' /etc/pam.d/su"
check "passwords are hashed well" "grep -q '^ENCRYPT_METHOD *\\(YESCRYPT\\|SHA512\\)' /etc/login.defs"
check "passwords end" "[ \"\$(awk '\$1 == \"PASS_MAX_DAYS\" { print \$2 }' /etc/login.defs)\" -le 365 ]"
check "umask of logins" "grep -q '^UMASK *0[27]7' /etc/login.defs"
check "sessions end when idle" "grep -rqs TMOUT /etc/profile /etc/profile.d /etc/bash.bashrc"

# Files and logs.
check "no file is everybody's to write" "! find / -xdev -type f -perm -0002 -not -path '/proc/*' | grep -q ."
check "directories for all are sticky" "! find / -xdev -type d -perm -0002 ! -perm -1000 | grep -q ."
check "each file has an owner" "! find / -xdev \\( -nouser -o -nogroup \\) | grep -q ."
check "the journal is kept" "[ -d /var/log/journal ] || grep -rqs '^Storage=persistent' /etc/systemd"
check "the journal has a limit" "grep -rqs '^SystemMaxUse=' /etc/systemd"
check "logs are rotated" "! absent logrotate"
check "logs are closed to others" "! find /var/log -type f -perm /0137 -not -path '*/journal/*' | grep -q ."
check "/etc/issue tells nothing of the system" "! grep -qs -e '\\\\[mrsv]' -e Debian /etc/issue"
check "/etc/issue.net tells nothing of the system" "! grep -qs -e '\\\\[mrsv]' -e Debian /etc/issue.net"
check "core dumps are off" "kernel fs/suid_dumpable 0"
