// SPDX-License-Identifier: Apache-2.0
/**
 * What the API still writes while the store is nearly full, and why; everything else is refused with STORE_NEARLY_FULL.
 * The leader writes on (its key, leases, the state of hosts and VMs, operations that were accepted): without that the plant
 * stands still. Every mutating method has a line here, so that each new one is thought about.
 */
export const WHEN_NEARLY_FULL: Readonly<Record<string, { readonly written: boolean; readonly because: string }>> = {
  'busbar.v1.VmService/StartVm': written('a VM that is needed must run'),
  'busbar.v1.VmService/StopVm': written('a VM that does harm must stop'),
  'busbar.v1.VmService/RestartVm': written('as stop and start'),
  'busbar.v1.VmService/DeleteVm': written('makes room'),
  'busbar.v1.VolumeService/DeleteVolume': written('makes room'),
  'busbar.v1.ImageService/DeleteImage': written('makes room'),
  'busbar.v1.NetworkService/DeleteNetwork': written('makes room'),
  'busbar.v1.OperationService/CancelOperation': written('ends what writes'),
  'busbar.v1.HostService/UpdateHost': written('a host is taken out of service before it fails'),
  'busbar.v1.CertificateService/RevokeCertificate': written('whoever fills the store must be shut out'),
  'busbar.v1.CertificateService/RenewCertificate': written('a certificate that ends takes its daemon with it'),
  'busbar.v1.JoinTokenService/DeleteJoinToken': written('takes a right away'),
  'busbar.v1.ClusterService/AdoptCluster': written('after a restore nothing starts before what runs is taken over'),

  'busbar.v1.VmService/CreateVm': refused('takes room for good'),
  'busbar.v1.VmService/UpdateVm': refused('user data are the largest values there are'),
  'busbar.v1.VolumeService/CreateVolume': refused('takes room for good'),
  'busbar.v1.VolumeService/ResizeVolume': refused('can wait'),
  'busbar.v1.ImageService/ImportImage': refused('takes room for good'),
  'busbar.v1.NetworkService/CreateNetwork': refused('takes room for good'),
  'busbar.v1.NetworkService/UpdateNetwork': refused('can wait'),
  'busbar.v1.CertificateService/IssueCertificate': refused('takes room for a year'),
  'busbar.v1.JoinTokenService/CreateJoinToken': refused('can wait'),
  'busbar.v1.JoinService/Join': refused('a host that is not there yet can wait'),
};

function written(because: string) {
  return { written: true, because };
}

function refused(because: string) {
  return { written: false, because };
}

/** A method without a line is refused. */
export function isEssential(method: string): boolean {
  return Object.hasOwn(WHEN_NEARLY_FULL, method) && WHEN_NEARLY_FULL[method]?.written === true;
}
