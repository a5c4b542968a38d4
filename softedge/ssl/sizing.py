"""Whether batch, queue, ranks and data set fit each other, worked out before anything is launched."""

from __future__ import annotations

from softedge.config import Recipe
from softedge.errors import UserError


def queue_size(recipe: Recipe, images: int) -> int:
    """The queue that is used: the recipe's, or less where it would hold too many older keys of an image itself.

    An image's own older key is the nearest "negative" of all. Images are met once an epoch in a new order each time,
    so a queue of half an epoch's keys holds one for at most 1 image in 8, and a queue of a whole epoch for every
    second. Half an epoch is the limit here; the rest counts among the false negatives that SoftNCE is made for.
    """
    wanted, per_step = recipe.ssl.queue_length(), recipe.ssl.keys_per_step()
    half_epoch = images * (per_step // recipe.ssl.batch) // 2
    if wanted <= half_epoch:
        return wanted
    return min(wanted, max(half_epoch // per_step, 1) * per_step)


def bank_size(queue: int, batch: int, images: int) -> int:
    """The queue of a method that looks for neighbours in it, without negatives: at most one entry per image."""
    if queue < batch:
        raise UserError(
            f"ssl.queue = {queue} is smaller than the {batch} images of a step; use --set ssl.queue={batch}"
        )
    return min(queue, max(images, batch))


def notes(recipe: Recipe, images: int) -> list[str]:
    """What was changed, or is worth knowing, in a sentence each."""
    wanted, lines = recipe.ssl.queue_length(), []
    if wanted and (used := queue_size(recipe, images)) < wanted:
        lines.append(
            f"queue: {used} keys instead of {wanted}, or {images} images would meet their own older keys in it"
        )
    return lines


def _queue_for(recipe: Recipe, batch: int) -> str:
    """The setting of the queue that another batch needs besides, if it does."""
    per_step, wanted = recipe.ssl.keys_per_step() // recipe.ssl.batch * batch, recipe.ssl.queue_length()
    if not wanted or wanted % per_step == 0:
        return ""
    return f" --set ssl.queue={max(1, wanted // per_step) * per_step}"


def batch_for(images: int) -> int:
    """A batch for few images: at least four steps an epoch, where there are eight images or more."""
    return max(2, 1 << (images // 4).bit_length() - 1) if images >= 8 else images


def require_feasible(recipe: Recipe, images: int, world: int = 1) -> None:
    """Raise UserError, with values that work, when the settings cannot run on ``images`` images and ``world`` ranks."""
    settings, accumulate = recipe.ssl, recipe.optim.accumulate
    batch, parts = settings.batch, world * accumulate
    if images < 2:
        raise UserError(
            f"there {'is 1 image' if images else 'are no images'} to train on (copies of test images are excluded); "
            "give at least 2"
        )
    if batch > images:
        raise UserError(
            f"ssl.batch = {batch} is more than the {images} images to train on; use --set ssl.batch={batch_for(images)}"
        )
    groups = settings.key_groups(world)
    if batch % (parts * groups) or batch // (parts * groups) < 2:
        near = max(2, round(batch / (parts * groups))) * parts * groups
        split = f" and {groups} groups of keys" if groups > 1 else ""
        raise UserError(
            f"ssl.batch = {batch} cannot be split evenly, at least two images each, over {world} ranks × {accumulate} "
            f"accumulated parts{split}; use --set ssl.batch={near}{_queue_for(recipe, near)}"
        )
    queue, per_step = settings.queue_length(), settings.keys_per_step()
    if queue and queue % per_step:
        below = max(1, queue // per_step) * per_step
        usable = [str(b) for b in (1024, 512, 256, 128, 64) if queue % (per_step // batch * b) == 0][:2]
        other = f"use a batch of {' or '.join(usable)}, or " if usable else ""
        raise UserError(
            f"queue of {queue} is not a multiple of the {per_step} keys of a step (global batch {batch}"
            f"{' × 2 views' if per_step > batch else ''}); {other}--set ssl.queue={below}"
        )
